// SPDX-License-Identifier: GPL-2.0
/*
 * A module that has registered port0's option number for IPv6, so that port0
 * fails after it has registered its own for IPv4, and has to unregister that. Or
 * another number: option=NUMBER.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/netfilter.h>

static int port0_squatter_option = 0x7031;
module_param_named(option, port0_squatter_option, int, 0444);

static int port0_squatter_set(struct sock *sk, int optname, sockptr_t optval,
			      unsigned int optlen)
{
	return -EXFULL;
}

static struct nf_sockopt_ops port0_squatter = {
	.pf = PF_INET6,
	.set = port0_squatter_set,
	.owner = THIS_MODULE,
};

static int __init port0_squatter_init(void)
{
	port0_squatter.set_optmin = port0_squatter_option;
	port0_squatter.set_optmax = port0_squatter_option + 1;
	return nf_register_sockopt(&port0_squatter);
}

static void __exit port0_squatter_exit(void)
{
	nf_unregister_sockopt(&port0_squatter);
}

module_init(port0_squatter_init);
module_exit(port0_squatter_exit);

MODULE_DESCRIPTION("Holds a socket option for the tests of port0");
MODULE_LICENSE("GPL");
