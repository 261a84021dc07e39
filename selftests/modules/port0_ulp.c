// SPDX-License-Identifier: GPL-2.0
/*
 * An upper layer protocol (ULP) of TCP with the name of SMC's, which newer kernels do not
 * have. It does nothing, and leaves the socket to TCP.
 */
#include <linux/module.h>
#include <net/tcp.h>

static int port0_ulp_start(struct sock *sk)
{
	return 0;
}

/* Without this, a socket with a ULP cannot listen. */
static void port0_ulp_clone(const struct request_sock *req, struct sock *child,
			    const gfp_t priority)
{
	__module_get(THIS_MODULE);
}

static struct tcp_ulp_ops port0_ulp_ops = {
	.name = "smc",
	.owner = THIS_MODULE,
	.init = port0_ulp_start,
	.clone = port0_ulp_clone,
};

static int __init port0_ulp_init(void)
{
	/* Without SMC in the kernel, port0 need not know that ULP. */
	if (!IS_ENABLED(CONFIG_SMC))
		return -ENODEV;
	return tcp_register_ulp(&port0_ulp_ops);
}

static void __exit port0_ulp_exit(void)
{
	tcp_unregister_ulp(&port0_ulp_ops);
}

module_init(port0_ulp_init);
module_exit(port0_ulp_exit);

MODULE_DESCRIPTION("A TCP ULP by the name of SMC's, for the tests of port0");
MODULE_LICENSE("GPL");
