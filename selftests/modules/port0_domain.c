// SPDX-License-Identifier: GPL-2.0
/*
 * Moves the sockets on a VRF into the domain of all others while a bind() looks which one
 * it is in: when the task that loads this first gets to l3mdev_master_ifindex_rcu(),
 * which finds the VRF of a device, tcp_l3mdev_accept is set in the task's network
 * namespace. Whoever looks again finds another domain than before.
 *
 * The parameter "moved", read only, is 1 once that has happened.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <net/net_namespace.h>

static unsigned int port0_domain_moved;
module_param_named(moved, port0_domain_moved, uint, 0444);

#ifdef CONFIG_NET_L3_MASTER_DEV
static struct task_struct *port0_domain_task;

static int port0_domain_look(struct kprobe *kp, struct pt_regs *regs)
{
	if (current == port0_domain_task && !port0_domain_moved) {
		WRITE_ONCE(current->nsproxy->net_ns->ipv4.sysctl_tcp_l3mdev_accept, 1);
		port0_domain_moved = 1;
	}
	return 0;
}

static struct kprobe port0_domain_kp = {
	.symbol_name = "l3mdev_master_ifindex_rcu",
	.pre_handler = port0_domain_look,
};

static int __init port0_domain_init(void)
{
	port0_domain_task = current;
	return register_kprobe(&port0_domain_kp);
}

static void __exit port0_domain_exit(void)
{
	unregister_kprobe(&port0_domain_kp);
}
#else
static int __init port0_domain_init(void)
{
	return -EOPNOTSUPP;
}

static void __exit port0_domain_exit(void)
{
}
#endif

module_init(port0_domain_init);
module_exit(port0_domain_exit);

MODULE_DESCRIPTION("Moves a VRF into another domain, for the tests of port0");
MODULE_LICENSE("GPL");
