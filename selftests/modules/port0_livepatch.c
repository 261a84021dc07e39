// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch on a function that port0 hooks: bind() of IPv4 sockets fails with
 * an error of its own, so that a test sees who has the function.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/net.h>

static int port0_livepatch_bind(struct socket *sock, void *uaddr, int addr_len)
{
	return -EXFULL;
}

static struct klp_func port0_livepatch_funcs[] = {
	{ .old_name = "inet_bind", .new_func = port0_livepatch_bind },
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
