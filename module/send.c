// SPDX-License-Identifier: GPL-2.0
/*
 * sendto() to port 0 on a marked UDP socket.
 *
 * udp_sendmsg() refuses 0 in the address and believes everything else, so it is
 * shown PORT0_STAND_IN, and while it runs the port in its flow is set back to 0
 * at the one place that every datagram passes between the address and the
 * header: the route lookup. Two more places look at the port on the way. A
 * cgroup program gets to see the true 0; and a corked IPv4 socket copies its
 * port once more after routing, where ip_append_data() is next.
 */
#include <net/ipv6.h>
#include <net/udp.h>

#include "call.h"
#include "hook.h"
#include "port0.h"

/* Whether the last datagram to port 0 that was sent had port 0 in its flow. */
static bool port0_send_routed;

/**
 * port0_inet_autobind - give a marked UDP socket a port, in place of
 * inet_autobind()
 * @sk: a UDP socket with a mark and no port, which is about to send or connect
 *
 * Mirrors inet_autobind(). Arms the hooks on sendmsg() first, for a socket that was
 * marked before the module was loaded.
 *
 * Context: process, no locks held.
 * Return: 0, or -EAGAIN if there is no port to be had.
 */
int port0_inet_autobind(struct sock *sk)
{
	struct inet_sock *inet = inet_sk(sk);
	int err = 0;

	/* Without them, sendto() to port 0 is -EINVAL, as on other sockets. */
	if (!port0_is_draining())
		port0_hooks_arm(PORT0_HOOKS_SEND);
	lock_sock(sk);
	if (!inet->inet_num && !port0_sock_holds(sk)) {
		if (sk->sk_prot->get_port(sk, 0))
			err = -EAGAIN;
		else
			inet->inet_sport = htons(inet->inet_num);
	}
	release_sock(sk);
	return err;
}

/**
 * port0_send_was_routed - tell how the last datagram to port 0 fared
 *
 * Context: process; for the check at load, when nobody else sends to port 0.
 * Return: true if its route was looked up where we are told, so that it has left
 * with port 0 and not with the stand-in.
 */
bool port0_send_was_routed(void)
{
	return READ_ONCE(port0_send_routed);
}

/**
 * port0_send_wants - tell whether a datagram is addressed to port 0
 * @sk: a marked UDP socket
 * @msg: what is being sent, its address in kernel memory
 *
 * An address that the kernel would not look at, or refuse for another reason,
 * is left to it.
 *
 * Context: process; udp_sendmsg() or udpv6_sendmsg() is being entered.
 * Return: true if the datagram needs our help.
 */
bool port0_send_wants(const struct sock *sk, const struct msghdr *msg)
{
	const struct sockaddr_in *sin = msg->msg_name;

	if (!sin || msg->msg_namelen < (int)sizeof(*sin) || sin->sin_port)
		return false;
	if (sk->sk_family == AF_INET6)
		return sin->sin_family == AF_INET6 ||
		       sin->sin_family == AF_INET;
	return sin->sin_family == AF_INET || sin->sin_family == AF_UNSPEC;
}

/**
 * port0_udp_sendmsg - send a datagram to port 0, in place of udp_sendmsg() and
 * udpv6_sendmsg()
 * @sk: a marked UDP socket
 * @msg: what to send; the address is as it was when this returns, unless a
 * cgroup program has rewritten it
 * @len: how much
 *
 * The kernel's own function is called through the socket's protocol, which
 * IPV6_ADDRFORM may have changed meanwhile; both take either family's socket.
 *
 * Context: process, no locks held.
 * Return: what the kernel's function returns, or why the hooks that the datagram
 * needs on its way cannot be armed.
 */
int port0_udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	struct sockaddr_in *sin = msg->msg_name;
	struct port0_call call;
	int err;

	err = port0_hooks_arm(PORT0_HOOKS_ROUTE);
	if (err)
		return err;

	port0_call_begin(&call, sk, PORT0_CALL_SEND);
	sin->sin_port = htons(PORT0_STAND_IN);
	call.stand_in = true;
	call.name = sin;
	err = READ_ONCE(sk->sk_prot)->sendmsg(sk, msg, len);
	if (call.name)
		sin->sin_port = 0;
	if (port0_is_loading())
		WRITE_ONCE(port0_send_routed, call.routed);
	port0_call_end(&call);
	return err;
}

static struct port0_call *port0_send_find(const struct sock *sk)
{
	struct port0_call *call = port0_call_find(sk, PORT0_CALL_SEND);

	return call && call->stand_in ? call : NULL;
}

/**
 * port0_send_route4 - put port 0 into the flow of a datagram under way
 * @sk: whose route is looked up; may be NULL or no full socket
 * @fl4: the flow
 *
 * Context: any; ip_route_output_flow() is being entered.
 */
void port0_send_route4(const struct sock *sk, struct flowi4 *fl4)
{
	struct port0_call *call = port0_send_find(sk);

	if (call && fl4->fl4_dport == htons(PORT0_STAND_IN)) {
		fl4->fl4_dport = 0;
		call->routed = true;
	}
}

/**
 * port0_send_route6 - put port 0 into the flow of a datagram under way
 * @sk: whose route is looked up
 * @fl6: the flow
 *
 * Context: process; ip6_sk_dst_lookup_flow() is being entered. A corked socket
 * copies the flow only after this.
 */
void port0_send_route6(const struct sock *sk, struct flowi6 *fl6)
{
	struct port0_call *call = port0_send_find(sk);

	if (call && fl6->fl6_dport == htons(PORT0_STAND_IN)) {
		fl6->fl6_dport = 0;
		call->routed = true;
	}
}

/**
 * port0_send_append - put port 0 into the flow of a socket being corked
 * @sk: the socket
 * @fl4: its flow, in the socket
 *
 * A call that has not asked for a route adds to a datagram that was begun
 * before, whose address stands.
 *
 * Context: process, socket locked; ip_append_data() is being entered.
 */
void port0_send_append(const struct sock *sk, struct flowi4 *fl4)
{
	struct port0_call *call = port0_send_find(sk);

	if (call && call->routed)
		fl4->fl4_dport = 0;
}

#ifdef CONFIG_CGROUP_BPF
/**
 * port0_send_runs_prog - tell whether a cgroup program is to see a datagram
 * under way to port 0
 * @sk: the socket
 * @uaddr: the address that the program is to be run on
 *
 * False once the stand-in has been taken out of the address: then it is the
 * replacement that makes this call.
 *
 * Context: process, socket locked.
 * Return: true if the program is to be run on port 0.
 */
bool port0_send_runs_prog(const struct sock *sk, const port0_sockaddr_t *uaddr)
{
	const struct sockaddr_in *sin = (const struct sockaddr_in *)uaddr;

	return sin && port0_send_find(sk) &&
	       sin->sin_port == htons(PORT0_STAND_IN);
}

/**
 * port0_cgroup_sock_addr_prog - run a sendmsg program on the true port 0, in
 * place of __cgroup_bpf_run_filter_sock_addr()
 * @PORT0_CGROUP_SOCK_ADDR_PARAMS: that function's parameters; of these, @sk is
 * a socket with a call under way, and @uaddr has the stand-in
 *
 * A program may send the datagram to another port, which is then left alone. What
 * it has rewritten may be a copy of the caller's address (a v4-mapped one), which
 * then still has the stand-in.
 *
 * Context: process, socket locked or not, as the kernel's function.
 * Return: what the kernel's function returns.
 */
int port0_cgroup_sock_addr_prog(PORT0_CGROUP_SOCK_ADDR_PARAMS)
{
	struct port0_call *call = port0_send_find(sk);
	struct sockaddr_in *sin = (struct sockaddr_in *)uaddr;
	int err;

	sin->sin_port = 0;
	err = __cgroup_bpf_run_filter_sock_addr(PORT0_CGROUP_SOCK_ADDR_ARGS);
	if (sin->sin_port) {
		call->stand_in = false;
		if (call->name == sin)
			call->name = NULL;
	} else {
		sin->sin_port = htons(PORT0_STAND_IN);
	}
	return err;
}
#endif
