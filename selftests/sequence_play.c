// SPDX-License-Identifier: GPL-2.0
/*
 * Plays a sequence on one side and records what every call returned, without what may
 * differ between two sides: the number of the port under test.
 */
#include <asm/byteorder.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include <linux/capability.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/sockios.h>

#include "sequence.h"

#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

#define EPHEMERAL	32768

static struct socket_slot {
	int fd;
	bool unmarked, tcp;
} slots[SLOTS];

unsigned int left_out[KNOWN_ROWS];

/* One play of a sequence, at one of its steps. */
struct play {
	const struct side *side;
	struct tally *tally;
	unsigned int index;
	char *line;
	size_t used;
	short ready[SLOTS];
};

static void __attribute__((format(printf, 2, 3)))
say(struct play *play, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(play->line + play->used, LINE - play->used, fmt, args);
	va_end(args);
	play->used += n;
	if (play->used >= LINE)
		ksft_exit_fail_msg("a line of a transcript is too long\n");
}

static void say_result(struct play *play, long result)
{
	if (result < 0)
		say(play, "%s", errno_name(errno));
	else
		say(play, "%ld", result);
}

static void say_name(struct play *play, const struct addr *name, const char *zero_is)
{
	char ip[INET6_ADDRSTRLEN] = "?";
	int port = port_of(name);

	if (name->sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &name->v4.sin_addr, ip, sizeof(ip));
	else if (name->sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &name->v6.sin6_addr, ip, sizeof(ip));
	if (name->sa.sa_family == AF_INET6) {
		if (name->v6.sin6_scope_id)
			say(play, " %%%u", name->v6.sin6_scope_id);
		if (name->v6.sin6_flowinfo)
			say(play, " flow %x", ntohl(name->v6.sin6_flowinfo));
	}
	if (!port)
		say(play, " [%s]:%s", ip, zero_is);
	else if (port == play->side->port)
		say(play, " [%s]:PORT", ip);
	else if (port >= EPHEMERAL)
		say(play, " [%s]:eph", ip);
	else
		say(play, " [%s]:%u", ip, port);
}

/* A peer's port 0 is the port under test, on the side of port 0. */
static void say_remote_name(struct play *play, const struct addr *name)
{
	if (name->len)
		say_name(play, name, play->side->marked ? "PORT" : "0");
	else
		say(play, " no name");
}

/*
 * A TCP socket that has lost its port still reports the old number. If that is 0, it
 * looks like no port, so "0?" stands for both, see same_line().
 */
static const char *own_zero(const struct play *play, const struct socket_slot *slot, bool strict)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	if (!play->side->marked || slot->unmarked)
		return "0";
	if (side_holds(play->side, slot->fd))
		return "PORT";
	if (!strict && slot->tcp && !getsockopt(slot->fd, SOL_TCP, TCP_INFO, &info, &len) &&
	    info.tcpi_state == TCP_CLOSE)
		return "0?";
	return "0";
}

static void say_own_name(struct play *play, const struct socket_slot *slot, bool strict)
{
	struct addr name = { .len = sizeof(name.v6) };

	if (getsockname(slot->fd, &name.sa, &name.len))
		say(play, " %s", errno_name(errno));
	else
		say_name(play, &name, own_zero(play, slot, strict));
	if (!slot->unmarked && side_holds(play->side, slot->fd))
		play->tally->held++;
}

/* Print the poll() events of sockets, where they have changed. */
static void say_readiness(struct play *play)
{
	static const struct {
		short event;
		char letter;
	} events[] = {
		{ POLLIN, 'i' }, { POLLPRI, 'p' }, { POLLOUT, 'o' },
		{ POLLRDHUP, 'r' }, { POLLHUP, 'h' }, { POLLERR, 'e' },
	};
	struct pollfd polls[SLOTS];
	unsigned int slot, e;

	for (slot = 0; slot < SLOTS; slot++)
		polls[slot] = (struct pollfd){
			.fd = slots[slot].fd,
			.events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP,
		};
	poll(polls, SLOTS, 0);
	for (slot = 0; slot < SLOTS; slot++) {
		if (polls[slot].fd < 0 || polls[slot].revents == play->ready[slot])
			continue;
		play->ready[slot] = polls[slot].revents;
		say(play, " s%u:", slot);
		for (e = 0; e < ARRAY_SIZE(events); e++)
			if (polls[slot].revents & events[e].event)
				say(play, "%c", events[e].letter);
	}
}

static int port_number(const struct play *play, enum port port)
{
	if (port == UNDER_TEST)
		return play->side->port;
	return port == OTHER ? OTHER_PORT : 0;
}

static socklen_t make_address(const struct play *play, enum place place, enum port port,
			      enum spoil spoil, bool flow, struct sockaddr_storage *to)
{
	struct addr addr = addr_of(places[place].text, port_number(play, port));
	const socklen_t lengths[SPOILS] = {
		[AS_IS] = addr.len, [UNSPEC] = addr.len, [LOCAL] = addr.len,
		[EMPTY] = 0, [SHORT] = 12, [LONG] = sizeof(*to), [TOO_LONG] = sizeof(*to) + 1,
	};

	if (place == LINK6)
		addr.v6.sin6_scope_id = LO_INDEX;
	if (flow && addr.sa.sa_family == AF_INET6)
		addr.v6.sin6_flowinfo = htonl(FLOW);
	memset(to, 0, sizeof(*to));
	memcpy(to, &addr.sa, addr.len);
	if (spoil == UNSPEC)
		to->ss_family = AF_UNSPEC;
	if (spoil == LOCAL)
		to->ss_family = AF_UNIX;
	return lengths[spoil];
}

static bool is_connected_to_port(const struct play *play, int fd, bool *mapped)
{
	struct addr peer = { .len = sizeof(peer.v6) };

	if (getpeername(fd, &peer.sa, &peer.len) || port_of(&peer) != play->side->port)
		return false;
	*mapped = is_mapped(&peer);
	return true;
}

/*
 * Tell whether this datagram, or the ICMP error that it may cause, would reach a socket
 * that is connected to the port under test, although it does not come from that port.
 */
static bool shows_udp_peer(const struct play *play, const struct socket_slot *from, bool to_port)
{
	bool from_port = side_holds(play->side, from->fd), mapped;
	unsigned int i;

	for (i = 0; i < SLOTS; i++) {
		const struct socket_slot *slot = &slots[i];
		bool on_port;

		if (slot->fd < 0 || slot->tcp || !is_connected_to_port(play, slot->fd, &mapped))
			continue;
		on_port = side_holds(play->side, slot->fd);
		if (on_port == to_port && !from_port)
			return true;
		if (on_port == from_port && !to_port)
			return true;
	}
	return false;
}

/* Count a call that would show the known difference. Returns @known. */
static bool is_known(bool known)
{
	left_out[KNOWN_UDP_PEER] += known;
	return known;
}

/* The destination of corked data depends on earlier calls, so assume both. */
static bool corked_shows_udp_peer(const struct play *play, const struct socket_slot *slot)
{
	return shows_udp_peer(play, slot, true) || shows_udp_peer(play, slot, false);
}

bool leave_out_send(const struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	bool named = step->call == SENDTO, mapped = false, toward;
	int pending;

	if (slot->tcp)
		return false;
	toward = is_connected_to_port(play, slot->fd, &mapped);
	/* An unmarked socket keeps the EINVAL that the kernel has for this. */
	if (slot->unmarked && ((named && step->message.port == UNDER_TEST) || (toward && mapped)))
		return true;
	/*
	 * A corked datagram goes where its first part was sent, and ignores this call's
	 * address.
	 */
	if (!ioctl(slot->fd, SIOCOUTQ, &pending) && pending)
		return is_known(corked_shows_udp_peer(play, slot));
	if (named)
		toward = step->message.port == UNDER_TEST;
	return is_known(shows_udp_peer(play, slot, toward));
}

/* UDP's own options may send what is corked. */
bool leave_out_sockopt(const struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	bool mapped = false;

	if (slot->tcp || sockopts[step->sockopt].level != SOL_UDP)
		return false;
	if (slot->unmarked && is_connected_to_port(play, slot->fd, &mapped) && mapped)
		return true;
	return is_known(corked_shows_udp_peer(play, slot));
}

void play_socket(struct play *play, const struct step *step)
{
	struct socket_slot *slot = &slots[step->slot];
	const struct kind *kind = &kinds[step->socket.kind];

	slot->unmarked = step->socket.unmarked;
	slot->tcp = kind->type == SOCK_STREAM;
	slot->fd = socket_of(step->socket.foreign, kind->family, kind->type | SOCK_NONBLOCK);
	if (slot->fd >= 0 && !slot->unmarked)
		side_mark(play->side, slot->fd);
	/* With Nagle's algorithm results would depend on when an ACK arrives. */
	if (slot->fd >= 0 && slot->tcp)
		must(set_int(slot->fd, SOL_TCP, TCP_NODELAY, 1), "TCP_NODELAY");
	say(play, "%s", slot->fd < 0 ? errno_name(-slot->fd) : "ok");
}

/*
 * A group distributes its traffic by a hash over the ports, which differ between the
 * sides. So every group gets a program that gives all of it to its first member.
 */
static int steer_to_first(int fd)
{
	struct sock_filter first = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = { .len = 1, .filter = &first };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

void play_setsockopt(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	const struct sockopt *option = &sockopts[step->sockopt];
	int error = setsockopt(slot->fd, option->level, option->name, option->value, option->len);

	say_result(play, error);
	if (!error && option->level == SOL_SOCKET && option->name == SO_REUSEPORT &&
	    *(const int *)option->value == PROGRAM_WANTED) {
		say(play, ", group ");
		say_result(play, steer_to_first(slot->fd));
	}
}

/* If the socket has SO_REUSEPORT, it is in a group now: attach the program. */
static void steer_group(const struct socket_slot *slot)
{
	int shares = 0;
	socklen_t len = sizeof(shares);

	getsockopt(slot->fd, SOL_SOCKET, SO_REUSEPORT, &shares, &len);
	if (shares)
		steer_to_first(slot->fd);
}

/* Capabilities are a thread's own. */
static void set_capability(bool have)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
	__u32 *effective = &caps[CAP_TO_INDEX(CAP_NET_BIND_SERVICE)].effective;

	must(rc(syscall(SYS_capget, &head, caps)), "capget");
	*effective &= ~CAP_TO_MASK(CAP_NET_BIND_SERVICE);
	if (have)
		*effective |= CAP_TO_MASK(CAP_NET_BIND_SERVICE);
	must(rc(syscall(SYS_capset, &head, caps)), "capset");
}

void play_bind(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	struct sockaddr_storage to;
	socklen_t len;
	int error;

	if (slot->unmarked && step->address.port == UNDER_TEST)
		return;
	len = make_address(play, step->address.place, step->address.port, step->address.spoil,
			   step->address.flow, &to);
	if (step->address.weak)
		set_capability(false);
	error = rc(bind(slot->fd, (struct sockaddr *)&to, len));
	if (step->address.weak)
		set_capability(true);
	say(play, "%s", errno_name(-error));
	if (!error && !slot->tcp)
		steer_group(slot);
	say_own_name(play, slot, !error);
}

void play_listen(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	int error = listen(slot->fd, backlogs[step->backlog]);

	play->tally->listens += !error;
	say_result(play, error);
	if (!error)
		steer_group(slot);
	say_own_name(play, slot, !error);
}

void play_connect(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	struct sockaddr_storage to;
	socklen_t len = make_address(play, step->address.place, step->address.port,
				     step->address.spoil, step->address.flow, &to);
	int error = connect(slot->fd, (struct sockaddr *)&to, len);

	play->tally->connects += !error || errno == EINPROGRESS;
	say_result(play, error);
	say_own_name(play, slot, false);
}

void play_accept(struct play *play, const struct step *step)
{
	const struct socket_slot *from = &slots[step->slot];
	struct socket_slot *to = &slots[step->to.slot];
	struct addr name = { .len = sizeof(name.v6) };

	if (to->fd >= 0)
		return;
	to->unmarked = from->unmarked;
	to->tcp = from->tcp;
	if (step->to.named)
		to->fd = accept4(from->fd, &name.sa, &name.len, SOCK_NONBLOCK);
	else
		to->fd = accept4(from->fd, NULL, NULL, SOCK_NONBLOCK);
	if (to->fd < 0) {
		say_result(play, -1);
		return;
	}
	play->tally->accepts++;
	if (step->to.named)
		say_remote_name(play, &name);
	say_own_name(play, to, false);
}

static void add_cmsg(struct msghdr *msg, int level, int type, const void *data, size_t len)
{
	struct cmsghdr *cmsg = msg->msg_control;

	cmsg->cmsg_level = level;
	cmsg->cmsg_type = type;
	cmsg->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(cmsg), data, len);
	msg->msg_controllen = CMSG_SPACE(len);
}

static void fill_cmsg(struct msghdr *msg, enum cmsg which, bool v6)
{
	static const struct in_pktinfo source4 = {
		.ipi_spec_dst.s_addr = __constant_htonl(0x7f000002),
	};
	static const struct in6_pktinfo source6 = { .ipi6_addr = IN6ADDR_LOOPBACK_INIT };
	static const int ttl = 3, tos = 8;
	static const __u16 segment = 3;
	static const struct {
		int level, type;
		const void *data;
		size_t len;
	} table[CMSGS][2] = {	/* for IPv4, for IPv6 */
		[SOURCE_CMSG] = {
			{ SOL_IP, IP_PKTINFO, &source4, sizeof(source4) },
			{ SOL_IPV6, IPV6_PKTINFO, &source6, sizeof(source6) },
		},
		[TTL_CMSG] = {
			{ SOL_IP, IP_TTL, &ttl, sizeof(ttl) },
			{ SOL_IPV6, IPV6_HOPLIMIT, &ttl, sizeof(ttl) },
		},
		[TOS_CMSG] = {
			{ SOL_IP, IP_TOS, &tos, sizeof(tos) },
			{ SOL_IPV6, IPV6_TCLASS, &tos, sizeof(tos) },
		},
		[SEGMENT_CMSG] = {
			{ SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment) },
			{ SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment) },
		},
	};

	if (which != NO_CMSG)
		add_cmsg(msg, table[which][v6].level, table[which][v6].type,
			 table[which][v6].data, table[which][v6].len);
}

static void send_message(struct play *play, const struct step *step, struct msghdr *msg)
{
	const struct socket_slot *slot = &slots[step->slot];
	struct iovec iov;
	char text[16];
	ssize_t sent;

	iov.iov_base = text;
	iov.iov_len = sprintf(text, "m%03uabcd", play->index);
	msg->msg_iov = &iov;
	msg->msg_iovlen = 1;
	sent = sendmsg(slot->fd, msg, send_flags[step->message.flag].flag | MSG_NOSIGNAL);
	play->tally->sends += sent > 0;
	say_result(play, sent);
	say_own_name(play, slot, false);
}

void play_send(struct play *play, const struct step *step)
{
	struct msghdr msg = {};

	send_message(play, step, &msg);
}

void play_sendto(struct play *play, const struct step *step)
{
	char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = "";
	struct msghdr msg = { .msg_control = control };
	struct sockaddr_storage to;

	msg.msg_namelen = make_address(play, step->message.place, step->message.port, AS_IS,
				       step->message.flow, &to);
	msg.msg_name = &to;
	fill_cmsg(&msg, step->message.cmsg, to.ss_family == AF_INET6);
	send_message(play, step, &msg);
}

static void say_cmsg(struct play *play, const struct cmsghdr *cmsg)
{
	const void *data = CMSG_DATA(cmsg);
	const struct sock_extended_err *error = data;
	const struct in_pktinfo *info = data;
	const struct in6_pktinfo *info6 = data;
	char ip[INET6_ADDRSTRLEN], ip2[INET6_ADDRSTRLEN];
	struct addr name = { .len = sizeof(name.v6) };

	if (cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_PKTINFO) {
		say(play, " pktinfo %d %s %s", info->ipi_ifindex,
		    inet_ntop(AF_INET, &info->ipi_spec_dst, ip, sizeof(ip)),
		    inet_ntop(AF_INET, &info->ipi_addr, ip2, sizeof(ip2)));
	} else if (cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_PKTINFO) {
		say(play, " pktinfo %d %s", info6->ipi6_ifindex,
		    inet_ntop(AF_INET6, &info6->ipi6_addr, ip, sizeof(ip)));
	} else if ((cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_RECVORIGDSTADDR) ||
		   (cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_RECVORIGDSTADDR)) {
		say(play, " to");
		memcpy(&name.v6, data, sizeof(name.v6));
		say_remote_name(play, &name);
	} else if ((cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_RECVERR) ||
		   (cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_RECVERR)) {
		say(play, " error %s origin %u type %u code %u", errno_name(error->ee_errno),
		    error->ee_origin, error->ee_type, error->ee_code);
	} else {
		say(play, " cmsg %d/%d", cmsg->cmsg_level, cmsg->cmsg_type);
	}
}

void play_recv(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	char text[64], control[512];
	struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) };
	struct addr name = {};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_name = &name.sa, .msg_namelen = sizeof(name.v6),
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	ssize_t got = recvmsg(slot->fd, &msg, recv_flags[step->recv_flag].flag);

	if (got < 0) {
		say_result(play, got);
		return;
	}
	play->tally->bytes += got;
	say(play, "%zd \"%.*s\" flags %x from", got,
	    (int)(got < (ssize_t)sizeof(text) ? got : (ssize_t)sizeof(text)), text,
	    msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC | MSG_OOB | MSG_ERRQUEUE));
	name.len = msg.msg_namelen;
	say_remote_name(play, &name);
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg))
		say_cmsg(play, cmsg);
}

void play_shutdown(struct play *play, const struct step *step)
{
	say_result(play, shutdown(slots[step->slot].fd, step->how));
}

void play_getsockname(struct play *play, const struct step *step)
{
	say_own_name(play, &slots[step->slot], false);
}

void play_getpeername(struct play *play, const struct step *step)
{
	struct addr name = { .len = sizeof(name.v6) };

	if (getpeername(slots[step->slot].fd, &name.sa, &name.len))
		say_result(play, -1);
	else
		say_remote_name(play, &name);
}

void play_so_error(struct play *play, const struct step *step)
{
	int error = -1;
	socklen_t len = sizeof(error);

	getsockopt(slots[step->slot].fd, SOL_SOCKET, SO_ERROR, &error, &len);
	say(play, "%s", errno_name(error));
}

void play_dup(struct play *play, const struct step *step)
{
	struct socket_slot *to = &slots[step->to.slot];

	if (to->fd >= 0)
		return;
	*to = slots[step->slot];
	to->fd = dup(slots[step->slot].fd);
	say(play, "ok");
}

void play_close(struct play *play, const struct step *step)
{
	say_result(play, close(slots[step->slot].fd));
	slots[step->slot].fd = -1;
}

static void set_sysctl(const char *name, const char *value)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	must(write_file(path, value), path);
}

static void set_privileged(bool all_ports)
{
	set_sysctl("ipv4/ip_unprivileged_port_start", privileged_start(all_ports));
}

void play_privileged(struct play *play, const struct step *step)
{
	set_privileged(step->all_ports);
	say(play, "ok");
}

static bool sends_packets(const struct step *step)
{
	int level;

	if (step->call != SETSOCKOPT)
		return operations[step->call].sends;
	level = sockopts[step->sockopt].level;
	return level == SOL_UDP || level == SOL_TCP;
}

/*
 * A second thread, which makes a call on request. The calls keep their order but are
 * made by two tasks, which share their files.
 */
static struct second {
	pthread_t thread;
	sem_t wanted, done;
	struct play *play;
	const struct step *step;
} second;

static void *second_run(void *play)
{
	side_enter(((const struct play *)play)->side);
	while (!sem_wait(&second.wanted) && second.step) {
		operations[second.step->call].play(second.play, second.step);
		sem_post(&second.done);
	}
	return NULL;
}

static void second_start(struct play *play)
{
	sem_init(&second.wanted, 0, 0);
	sem_init(&second.done, 0, 0);
	must(-pthread_create(&second.thread, NULL, second_run, play), "pthread_create");
}

static void second_play(struct play *play, const struct step *step)
{
	second.play = play;
	second.step = step;
	sem_post(&second.wanted);
	sem_wait(&second.done);
}

static void second_end(void)
{
	second.step = NULL;
	sem_post(&second.wanted);
	pthread_join(second.thread, NULL);
}

static void play_step(struct play *play, const struct step *step, int fence)
{
	const struct operation *operation = &operations[step->call];

	if (!operation->slotless &&
	    (operation->opens ? slots[step->slot].fd >= 0 : slots[step->slot].fd < 0))
		return;
	if (operation->left_out && operation->left_out(play, step))
		return;
	play->tally->calls++;
	if (step->thread)
		second_play(play, step);
	else
		operation->play(play, step);
	if (sends_packets(step))
		must(fence_pass(fence), "the fence");
	say_readiness(play);
}

void arena_open(struct arena *arena)
{
	side_open(&arena->side);
	/* TCP metrics that are saved from one connection would change the next one. */
	set_sysctl("ipv4/tcp_no_metrics_save", "1");
	/* Whether a TIME_WAIT is reused depends on the clock. */
	set_sysctl("ipv4/tcp_tw_reuse", "0");
	/* Fast Open in both directions, without cookies. */
	set_sysctl("ipv4/tcp_fastopen", "519");
	/* No rate limit for ICMP errors: each of them is part of the transcript. */
	set_sysctl("ipv4/icmp_ratemask", "0");
	set_sysctl("ipv6/icmp/ratemask", "");
	if (have_family_of(LINK_IP6))
		must(add_ip6_to_lo(LINK_IP6), "an address for loopback");
	arena->fence = must(fence_open(), "the fence");
	arena->sockstat[0] = open("/proc/thread-self/net/sockstat", O_RDONLY | O_CLOEXEC);
	arena->sockstat[1] = open("/proc/thread-self/net/sockstat6", O_RDONLY | O_CLOEXEC);
}

static void arena_close(struct arena *arena)
{
	close(arena->fence);
	close(arena->sockstat[0]);
	close(arena->sockstat[1]);
	close(arena->side.netns);
}

/* Nothing but the fence may outlive a sequence. */
static bool arena_is_clean(const struct arena *arena)
{
	unsigned int tcp, time_wait, udp, i;
	char text[512];

	for (i = 0; i < 2; i++) {
		ssize_t len = pread(arena->sockstat[i], text, sizeof(text) - 1, 0);
		const char *line;

		if (len <= 0)
			ksft_exit_fail_msg("sockstat: %s\n", strerror(errno));
		text[len] = 0;
		time_wait = 0;
		line = strstr(text, "TCP");
		if (!line || (i ? sscanf(line, "TCP6: inuse %u", &tcp) != 1 :
				  sscanf(line, "TCP: inuse %u orphan %*u tw %u",
					 &tcp, &time_wait) != 2))
			ksft_exit_fail_msg("sockstat: no TCP line\n");
		line = strstr(text, "UDP");
		if (!line || (sscanf(line, i ? "UDP6: inuse %u" : "UDP: inuse %u", &udp) != 1))
			ksft_exit_fail_msg("sockstat: no UDP line\n");
		if (tcp || time_wait || udp != !i)
			return false;
	}
	return true;
}

void play_sequence(struct arena *arena, const struct sequence *sequence)
{
	struct play play = { .side = &arena->side, .tally = &arena->tally };
	bool threads = false, privileges = false;
	unsigned int i;

	side_enter(&arena->side);
	for (i = 0; i < SLOTS; i++)
		slots[i].fd = -1;
	for (i = 0; i < sequence->steps; i++) {
		threads |= sequence->step[i].thread;
		privileges |= sequence->step[i].call == PRIVILEGED;
	}
	if (threads)
		second_start(&play);
	for (i = 0; i < sequence->steps; i++) {
		play.index = i;
		play.line = arena->lines.line[i];
		play.line[0] = 0;
		play.used = 0;
		play_step(&play, &sequence->step[i], arena->fence);
	}
	for (i = 0; i < SLOTS; i++) {
		if (slots[i].fd < 0)
			continue;
		reset_on_close(slots[i].fd);
		close(slots[i].fd);
	}
	if (threads)
		second_end();
	if (privileges)
		set_privileged(true);
	must(fence_pass(arena->fence), "the fence");
	if (!arena_is_clean(arena)) {
		arena_close(arena);
		arena_open(arena);
		arena->renewals++;
	}
}
