// SPDX-License-Identifier: GPL-2.0
/*
 * Tells whether TCP frees its bind buckets while it holds the lock of the chain that they
 * are in. Only for buckets of port 0 in the network namespace of the task that loads this,
 * and while all of them are for 127.0.0.1 or ::1.
 *
 * The parameters, all read only: "freed" counts the buckets, "unlocked" those whose
 * chain was not locked.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/nsproxy.h>
#include <net/inet_hashtables.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

static unsigned int port0_chain_freed;
module_param_named(freed, port0_chain_freed, uint, 0444);
static unsigned int port0_chain_unlocked;
module_param_named(unlocked, port0_chain_unlocked, uint, 0444);

#ifdef HAVE_BHASH2
static struct net *port0_chain_net;

static bool port0_chain_is_locked(const struct inet_hashinfo *hashinfo, u32 hash)
{
	return spin_is_locked(&hashinfo->bhash2[hash & (hashinfo->bhash_size - 1)].lock);
}

static int port0_chain_free(struct kprobe *kp, struct pt_regs *regs)
{
	const struct inet_hashinfo *hashinfo = port0_chain_net->ipv4.tcp_death_row.hashinfo;
	const struct inet_bind2_bucket *tb2 =
		(struct inet_bind2_bucket *)regs_get_kernel_argument(regs, 1);

	/* Objects of another kind may be in the same cache. */
	if (regs_get_kernel_argument(regs, 0) != (unsigned long)hashinfo->bind2_bucket_cachep ||
	    ib2_net(tb2) != port0_chain_net || tb2->port)
		return 0;
	port0_chain_freed++;
	if (!port0_chain_is_locked(hashinfo, ipv4_portaddr_hash(port0_chain_net,
								htonl(INADDR_LOOPBACK), 0)) &&
	    !port0_chain_is_locked(hashinfo, ipv6_portaddr_hash(port0_chain_net,
								&in6addr_loopback, 0)))
		port0_chain_unlocked++;
	return 0;
}

static struct kprobe port0_chain_kp = {
	.symbol_name = "kmem_cache_free",
	.pre_handler = port0_chain_free,
};

static int __init port0_chain_init(void)
{
	const struct inet_hashinfo *hashinfo;
	int err;

	port0_chain_net = get_net(current->nsproxy->net_ns);
	hashinfo = port0_chain_net->ipv4.tcp_death_row.hashinfo;
	/* Without slab_nomerge, buckets of ports and of addresses cannot be told apart. */
	if (hashinfo->bind_bucket_cachep == hashinfo->bind2_bucket_cachep) {
		put_net(port0_chain_net);
		return -EOPNOTSUPP;
	}
	err = register_kprobe(&port0_chain_kp);
	if (err)
		put_net(port0_chain_net);
	return err;
}

static void __exit port0_chain_exit(void)
{
	unregister_kprobe(&port0_chain_kp);
	put_net(port0_chain_net);
}
#else
/* Kernels before 6.1 have one chain for all addresses. */
static int __init port0_chain_init(void)
{
	return -EOPNOTSUPP;
}

static void __exit port0_chain_exit(void)
{
}
#endif

module_init(port0_chain_init);
module_exit(port0_chain_exit);

MODULE_DESCRIPTION("Watches the locks of bind buckets, for the tests of port0");
MODULE_LICENSE("GPL");
