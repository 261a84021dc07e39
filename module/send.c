// SPDX-License-Identifier: GPL-2.0
/*
 * sendto() to port 0 on a marked UDP socket.
 *
 * udp_sendmsg() refuses port 0 in the address, so it gets PORT0_STAND_IN instead. The
 * route lookup, which every datagram passes before its header is written, is hooked
 * to set the port in the flow back to 0. Two more places on the way use the port: a
 * cgroup program (sendmsg4 or sendmsg6), which is run with port 0 in the address, and
 * a corked IPv4 socket, which copies the port into the flow again after the route
 * lookup; for that, ip_append_data() is hooked.
 */
#include <linux/preempt.h>
#include <net/ipv6.h>
#include <net/udp.h>

#include "call.h"
#include "hook.h"
#include "port0.h"

/* For the self-check: the last datagram to port 0 had port 0 in its flow. */
static bool port0_send_routed;

/**
 * port0_send_arm - arm the hooks on sendmsg(), unless the module drains
 *
 * For a marked UDP socket that has just been bound: it may have been marked before the
 * module was loaded, or before the drain removed the hooks. When the drain ends,
 * port0_udp_any_marked() looks for bound sockets, and may have looked before this one was
 * bound. So this tests for the drain only now that the socket is bound.
 *
 * Context: process, no locks held; may sleep.
 */
void port0_send_arm(void)
{
	/* Either port0_udp_any_marked() sees the socket, or this sees the drain's end. */
	smp_mb();
	if (!port0_late_begin())
		return;
	/* If this fails, sendto() to port 0 gives EINVAL, as on other sockets. */
	port0_hooks_arm(PORT0_HOOKS_SEND);
	port0_late_end();
}

/**
 * port0_inet_autobind - give a marked UDP socket an ephemeral port, in place of
 * inet_autobind()
 * @sk: a marked UDP socket that is not bound and is about to send or connect
 *
 * Mirrors inet_autobind(). Also arms the hooks on sendmsg(), see port0_send_arm().
 *
 * Context: process, no locks held; may sleep. Takes the socket lock.
 * Return: 0, or -EAGAIN if get_port finds no free port.
 */
int port0_inet_autobind(struct sock *sk)
{
	struct inet_sock *inet = inet_sk(sk);
	int err = 0;

	lock_sock(sk);
	if (!inet->inet_num && !port0_sock_holds(sk)) {
		if (sk->sk_prot->get_port(sk, 0))
			err = -EAGAIN;
		else
			inet->inet_sport = htons(inet->inet_num);
	}
	release_sock(sk);
	port0_send_arm();
	return err;
}

/**
 * port0_send_was_routed - tell whether the last datagram was sent to port 0
 *
 * Context: process, in the self-check, when only its task can send to port 0.
 * Return: true if a hook on the route lookup has set the port in the flow back, so
 * that the datagram was sent to port 0 and not to the stand-in.
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
 * False for an address that the kernel ignores, or refuses for another reason.
 *
 * Context: process, no locks held, when udp_sendmsg() or udpv6_sendmsg() is entered;
 * does not sleep.
 * Return: true if the call is to be redirected.
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
 * @msg: what to send; the address is unchanged when this returns, unless a cgroup
 * program has rewritten it
 * @len: how many bytes
 *
 * Calls sendmsg of the socket's protocol. That is read again, since IPV6_ADDRFORM may
 * have changed it meanwhile; either function takes a socket of either family.
 *
 * Context: process, no locks held; may sleep.
 * Return: what the kernel's function returns, or what port0_hooks_arm_beside() returns.
 */
int port0_udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	struct sockaddr_in *sin = msg->msg_name;
	struct port0_call call;
	int err;

	/*
	 * The drain may have removed the hooks on sendmsg() since this call passed them. The
	 * call then fails, as it would without the hooks. If it armed them again, a socket
	 * that sends all the time would keep them armed for ever.
	 */
	err = port0_hooks_arm_beside(PORT0_HOOKS_SEND, PORT0_HOOKS_ROUTE);
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

/* This task's send to port 0, unless a cgroup program has changed its port */
static struct port0_call *port0_send_find(const struct sock *sk)
{
	struct port0_call *call = port0_call_find(sk, PORT0_CALL_SEND);

	return call && call->stand_in ? call : NULL;
}

/**
 * port0_send_route4 - put port 0 into the flow of a datagram
 * @sk: the socket of the route lookup; may be NULL or not a full socket
 * @fl4: the flow
 *
 * If the socket is connected and the route to its peer has expired, release_sock() looks
 * that route up again (ip4_datagram_release_cb()), also in a send to another address. The
 * flow of that look-up has the port of the peer. That can be port 1, the stand-in, and must
 * not be changed. Bottom halves are disabled in that look-up, and enabled in the one that
 * udp_sendmsg() makes for the datagram.
 *
 * Context: process or softirq, when ip_route_output_flow() is entered, with or
 * without the socket lock; does not sleep.
 */
void port0_send_route4(const struct sock *sk, struct flowi4 *fl4)
{
	struct port0_call *call = softirq_count() ? NULL : port0_send_find(sk);

	if (call && fl4->fl4_dport == htons(PORT0_STAND_IN)) {
		fl4->fl4_dport = 0;
		call->routed = true;
	}
}

/**
 * port0_send_route6 - put port 0 into the flow of a datagram
 * @sk: the socket
 * @fl6: the flow, which a corked socket copies after this
 *
 * Context: process, when ip6_sk_dst_lookup_flow() is entered; does not sleep.
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
 * port0_send_append - put port 0 into the flow of a corked socket
 * @sk: the socket
 * @fl4: its flow, which is in the socket
 *
 * A call that has not looked up a route appends to a datagram that an earlier call has
 * begun. That datagram keeps its destination.
 *
 * Context: process, socket locked, when ip_append_data() is entered; does not sleep.
 */
void port0_send_append(const struct sock *sk, struct flowi4 *fl4)
{
	struct port0_call *call = port0_send_find(sk);

	if (call && call->routed)
		fl4->fl4_dport = 0;
}

#ifdef CONFIG_CGROUP_BPF
/**
 * port0_send_runs_prog - tell whether a cgroup program is about to run on an address
 * that has the stand-in
 * @sk: the socket
 * @uaddr: the address that the program is to be run on
 *
 * False for the call that port0_cgroup_sock_addr_prog() makes itself, which has port
 * 0 in the address.
 *
 * Context: process, socket locked or not; does not sleep.
 * Return: true if the call is to be redirected.
 */
bool port0_send_runs_prog(const struct sock *sk, const port0_sockaddr_t *uaddr)
{
	const struct sockaddr_in *sin = (const struct sockaddr_in *)uaddr;

	return sin && port0_send_find(sk) &&
	       sin->sin_port == htons(PORT0_STAND_IN);
}

/**
 * port0_cgroup_sock_addr_prog - run a sendmsg program on port 0, in place of
 * __cgroup_bpf_run_filter_sock_addr()
 * @PORT0_CGROUP_SOCK_ADDR_PARAMS: that function's parameters; of these, @sk is
 * a socket with a send in flight, and @uaddr has the stand-in
 *
 * If the program sets another port, the flow is not changed any more. The address that
 * it has rewritten may be a copy of the caller's (for a v4-mapped one). The caller's
 * address then still has the stand-in, and port0_udp_sendmsg() sets it back to 0.
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
