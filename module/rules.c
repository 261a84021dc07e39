// SPDX-License-Identifier: GPL-2.0
/*
 * Finding out rules of bind() that no header shows: see rules.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cache.h>
#include <linux/in6.h>
#include <linux/net.h>
#include <linux/random.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "buckets.h"
#include "rules.h"

struct port0_rules port0_rules __ro_after_init;

#if PORT0_HAVE_BHASH2 && IS_ENABLED(CONFIG_IPV6)

/*
 * Addresses that are bound to find out a rule. HOST4 is on loopback, which need not
 * be up.
 */
enum port0_rules_addr {
	NONE,
	ANY4,
	HOST4,
	ANY6,
	ANY6_V6ONLY,
	ANY4_MAPPED,
	HOST4_MAPPED,
};

/* How often a question is asked, each time on another port, until it has an answer */
#define PORT0_RULES_TRIES	8

/*
 * How often a bind has to be refused before that counts as a rule. Once may have another
 * reason: no memory, for which the kernel has the same errno, or another program's socket
 * that is gone when the address is bound alone.
 */
#define PORT0_RULES_REFUSALS	3

#define PORT0_RULES_SOCKETS	3

/*
 * Bind a new socket to *port, or to any port if that is 0, and set *port to its port.
 * @host is the address of HOST4.
 */
static int port0_rules_bind(struct socket **sock, enum port0_rules_addr where,
			    __be32 host, __be16 *port)
{
	bool v4 = where == ANY4 || where == HOST4;
	struct sockaddr_in6 v6 = {
		.sin6_family = AF_INET6,
		.sin6_port = *port,
	};
	struct sockaddr_in v4addr = {
		.sin_family = AF_INET,
		.sin_port = *port,
		.sin_addr.s_addr = where == HOST4 ? host : htonl(INADDR_ANY),
	};
	int err;

	err = sock_create_kern(&init_net, v4 ? AF_INET : AF_INET6, SOCK_STREAM,
			       0, sock);
	if (err)
		return err;

	if (where == ANY4_MAPPED)
		ipv6_addr_set_v4mapped(htonl(INADDR_ANY), &v6.sin6_addr);
	else if (where == HOST4_MAPPED)
		ipv6_addr_set_v4mapped(host, &v6.sin6_addr);
	(*sock)->sk->sk_ipv6only = where == ANY6_V6ONLY;
	ip_sock_set_freebind((*sock)->sk);

	err = kernel_bind(*sock, v4 ? (void *)&v4addr : (void *)&v6,
			  v4 ? sizeof(v4addr) : sizeof(v6));
	if (!err)
		*port = htons(inet_sk((*sock)->sk)->inet_num);
	return err;
}

/*
 * Bind one socket to each of the addresses, all on one port. Returns 1 if all could
 * be bound, 0 if one was refused because of the others, -EADDRINUSE if it was also
 * refused without them, because of a socket of somebody else, or any other errno.
 */
static int port0_rules_ask(const enum port0_rules_addr *where)
{
	/* A random one of 127.0.0.0/8, so that nobody can have taken it in advance */
	__be32 host = htonl(0x7f000000 | (get_random_u32() & 0xffffff));
	struct socket *sock[PORT0_RULES_SOCKETS] = {};
	__be16 port = 0;
	int i, last, err = 0;

	for (i = 0; i < PORT0_RULES_SOCKETS && where[i] && !err; i++)
		err = port0_rules_bind(&sock[i], where[i], host, &port);
	last = i - 1;
	while (i-- > 0)
		if (sock[i])
			sock_release(sock[i]);
	if (!err)
		return 1;
	if (err != -EADDRINUSE || !last)
		return err;

	sock[last] = NULL;
	err = port0_rules_bind(&sock[last], where[last], host, &port);
	if (sock[last])
		sock_release(sock[last]);
	return err;
}

/* Set *lets to whether these addresses can be bound together. Returns 0 or an errno. */
static int port0_rules_lets(bool *lets, enum port0_rules_addr first,
			    enum port0_rules_addr second,
			    enum port0_rules_addr third)
{
	const enum port0_rules_addr where[PORT0_RULES_SOCKETS] = {
		first, second, third,
	};
	int answer, refusals = 0, tries = 0;

	do {
		answer = port0_rules_ask(where);
		refusals += !answer;
	} while ((answer == -EADDRINUSE ||
		  (!answer && refusals < PORT0_RULES_REFUSALS)) &&
		 ++tries < PORT0_RULES_TRIES);
	*lets = answer > 0;
	return min(answer, 0);
}

/**
 * port0_rules_learn - find out by which rules this kernel binds
 *
 * Binds sockets to ordinary ports in the initial network namespace.
 *
 * Context: process, in module init, before a socket can be marked; may sleep.
 * Return: 0, or the errno with which a socket could not be created or bound, which
 * is logged, too.
 */
int port0_rules_learn(void)
{
	bool spares, first, mapped, any4, any6, any_mapped, apart;
	int err;

	err = port0_rules_lets(&spares, ANY6_V6ONLY, HOST4_MAPPED, NONE) ?:
	      port0_rules_lets(&first, ANY4, ANY6_V6ONLY, HOST4) ?:
	      port0_rules_lets(&mapped, ANY4_MAPPED, HOST4_MAPPED, NONE) ?:
	      port0_rules_lets(&any4, ANY4, HOST4_MAPPED, NONE) ?:
	      port0_rules_lets(&any6, ANY6, HOST4, NONE) ?:
	      port0_rules_lets(&any_mapped, ANY4_MAPPED, HOST4, NONE) ?:
	      port0_rules_lets(&apart, HOST4_MAPPED, HOST4, NONE);
	if (err == -EAFNOSUPPORT)
		return 0;
	if (err) {
		pr_err("%s: cannot bind sockets to find out this kernel's rules for bind(): errno %d (load it where no cgroup program forbids bind and ephemeral ports are free)\n",
		       __func__, -err);
		return err;
	}
	port0_rules.v6only_blocks_mapped = !spares;
	port0_rules.first_any_only = first;
	port0_rules.any4_spares_mapped = any4;
	port0_rules.any6_spares4 = any6;
	port0_rules.mapped_any_spares4 = any_mapped;
	port0_rules.mapped_apart = apart;
	/*
	 * Only kernels of form B (see buckets.h) may compare with all sockets of the
	 * port. Kernels of form C refuse this pair for another reason.
	 */
#ifdef PORT0_BUCKETS_B
	port0_rules.mapped_walks = !mapped;
#endif
	return 0;
}

#else

/**
 * port0_rules_learn - find out by which rules this kernel binds
 *
 * Without a second-level table, or without IPv6, all kernels have the same rules.
 *
 * Context: process, in module init.
 * Return: 0.
 */
int port0_rules_learn(void)
{
	return 0;
}

#endif
