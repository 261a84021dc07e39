// SPDX-License-Identifier: GPL-2.0
/*
 * Does to the reference count of port0 what rmmod does when it fails: the kernel drops the
 * reference that each module has on itself, sees that there are others, and takes it
 * again. Here it is taken again when this module is unloaded.
 */
#include <linux/kobject.h>
#include <linux/module.h>

static struct module *port0_rmmod_module;

static int __init port0_rmmod_init(void)
{
	struct kobject *kobj;
	int err = 0;

	kobj = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, "port0");
	if (!kobj)
		return -ENOENT;
	port0_rmmod_module =
		container_of(kobj, struct module_kobject, kobj)->mod;
	/* If there is no other reference, rmmod would succeed. */
	if (!atomic_add_unless(&port0_rmmod_module->refcnt, -1, 1))
		err = -ECHILD;
	kobject_put(kobj);
	return err;
}

static void __exit port0_rmmod_exit(void)
{
	atomic_inc(&port0_rmmod_module->refcnt);
}

module_init(port0_rmmod_init);
module_exit(port0_rmmod_exit);

MODULE_DESCRIPTION("A failing rmmod of port0 that lasts, for the tests of port0");
MODULE_LICENSE("GPL");
