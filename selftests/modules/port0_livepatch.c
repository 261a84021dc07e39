// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch on a function that port0 hooks: by default bind() of IPv4
 * sockets. The patched function fails with a special errno, so that a test sees
 * that it is in place.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/net.h>

static char *port0_livepatch_func = "inet_bind";
module_param_named(func, port0_livepatch_func, charp, 0444);
MODULE_PARM_DESC(func, "a function that returns an int");

/* Replaces any such function, whatever its arguments are. */
static int port0_livepatch_refuse(void)
{
	return -EXFULL;
}

static struct klp_func port0_livepatch_funcs[] = {
	{ .new_func = port0_livepatch_refuse },
	{ }
};

static struct klp_object port0_livepatch_objects[] = {
	{ .funcs = port0_livepatch_funcs },
	{ }
};

static struct klp_patch port0_livepatch = {
	.mod = THIS_MODULE,
	.objs = port0_livepatch_objects,
};

static int __init port0_livepatch_init(void)
{
	port0_livepatch_funcs[0].old_name = port0_livepatch_func;
	return klp_enable_patch(&port0_livepatch);
}

static void __exit port0_livepatch_exit(void)
{
}

module_init(port0_livepatch_init);
module_exit(port0_livepatch_exit);

MODULE_DESCRIPTION("A livepatch for the tests of port0");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
