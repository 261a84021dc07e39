// SPDX-License-Identifier: GPL-2.0
/*
 * Makes a sequence from a seed: random calls, but with a preference for those that
 * make sense after the ones before.
 *
 * Every random number is drawn by a statement of its own, since C leaves it open
 * in which order the arguments of a call are evaluated: a seed has to mean the
 * same to every compiler.
 */
#include "sequence.h"

static __u64 random_state;

/* splitmix64: every seed is a good one, and neighbours are unrelated */
static unsigned int random_below(unsigned int limit)
{
	__u64 z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % limit;
}

static bool percent(unsigned int chance)
{
	return random_below(100) < chance;
}

/* Choose a row by its weight; sometimes one that does not suit the socket. */
static unsigned int pick(const struct table *table, unsigned int is)
{
	const char *rows = table->rows;
	unsigned int sum = 0, i;
	const struct row *row;

	if (percent(4))
		is = ALL;
	for (i = 0; i < table->count; i++) {
		row = (const void *)(rows + i * table->size);
		sum += row->needs & ~is ? 0 : row->weight;
	}
	sum = random_below(sum);
	for (i = 0; ; i++) {
		row = (const void *)(rows + i * table->size);
		if (row->needs & ~is)
			continue;
		if (sum < row->weight)
			return i;
		sum -= row->weight;
	}
}

/* What the generator assumes about a slot; this may be wrong. */
static struct belief {
	bool used, unmarked, bound, listening, connected;
	unsigned int is;
	enum place place;
	enum port port;
} belief[SLOTS];

static struct sequence *making;

/* The percentage of calls that a second thread makes in this sequence */
static unsigned int thread_chance;

static void add(struct step step)
{
	step.thread = percent(thread_chance);
	if (making->steps < MAX_STEPS)
		making->step[making->steps++] = step;
}

/* ADD(call, slot, .field = value...) */
#define ADD(_call, _slot, ...)							\
	add((struct step){ .call = _call, .slot = _slot, ##__VA_ARGS__ })

static enum spoil spoil(unsigned int chance)
{
	return percent(chance) ? random_below(SPOILS) : AS_IS;
}

static int free_slot(void)
{
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		if (!belief[i].used)
			return i;
	return -1;
}

/* A used slot, if possible one that has these properties */
static int used_slot(unsigned int is, bool bound, bool listening, bool connected)
{
	int any = -1, best = -1;
	unsigned int start = random_below(SLOTS), i;

	for (i = 0; i < SLOTS; i++) {
		unsigned int slot = (start + i) % SLOTS;
		const struct belief *b = &belief[slot];

		if (!b->used)
			continue;
		any = slot;
		if (!(is & ~b->is) && b->bound == bound && b->listening == listening &&
		    b->connected == connected)
			best = slot;
	}
	return best >= 0 && percent(90) ? best : any;
}

static int add_socket(unsigned int mix, unsigned int unmarked_chance)
{
	int slot = free_slot();
	bool udp = percent(mix), v6 = percent(45), unmarked = percent(unmarked_chance);
	unsigned int kind = 2 * udp + v6;

	if (slot < 0)
		return -1;
	belief[slot] = (struct belief){
		.used = true, .unmarked = unmarked, .is = kinds[kind].is,
	};
	ADD(SOCKET, slot, .socket.kind = kind, .socket.unmarked = unmarked,
	    .socket.foreign = percent(8));
	return slot;
}

static void add_option(unsigned int slot)
{
	ADD(SETSOCKOPT, slot, .sockopt = pick(&sockopt_table, belief[slot].is));
}

static void add_bind(unsigned int slot)
{
	struct step step = { .call = BIND, .slot = slot };
	struct belief *b = &belief[slot];

	b->port = UNDER_TEST;
	if (b->unmarked)
		b->port = percent(50) ? OTHER : ZERO;
	else if (percent(12))
		b->port = OTHER;
	b->place = pick(&place_table, b->is);
	b->bound = true;
	step.address.place = b->place;
	step.address.port = b->port;
	step.address.spoil = spoil(6);
	step.address.flow = percent(4);
	step.address.weak = percent(8);
	add(step);
}

/* An address at which a client of this kind reaches a server that is bound to @where */
static enum place reach(enum place where, unsigned int client)
{
	if (where == ANY6)
		where = percent(60) ? HOME6 : HOME_MAPPED;
	if (where == ANY4 || where == ANY_MAPPED)
		where = percent(70) ? HOME4 : SECOND4;
	if (client & V4 && where >= ANY_MAPPED)
		return where - ANY_MAPPED;
	if (client & V6 && where <= FAR4)
		return where + ANY_MAPPED;
	return where;
}

/* Choose a destination: mostly the address of a socket that may exist. */
static void choose_peer(unsigned int slot, enum place *place, enum port *port)
{
	unsigned int is = belief[slot].is;
	int server = used_slot(is & (TCP | UDP), true, is & TCP, false);

	if (server >= 0 && percent(75) && belief[server].bound && belief[server].port != ZERO) {
		*place = reach(belief[server].place, is);
		*port = belief[server].port;
	} else {
		*place = pick(&place_table, is);
		*port = percent(75) ? UNDER_TEST : OTHER;
	}
}

static void add_listen(unsigned int slot)
{
	ADD(LISTEN, slot, .backlog = percent(80) ? 0 : random_below(BACKLOGS));
	belief[slot].listening = true;
}

static void add_accept(unsigned int slot)
{
	int to = free_slot();

	if (to < 0)
		return;
	ADD(ACCEPT, slot, .to = { .slot = to, .named = percent(50) });
	belief[to] = belief[slot];
	belief[to].listening = false;
	belief[to].connected = true;
}

static void add_connect(unsigned int slot)
{
	struct step step = { .call = CONNECT, .slot = slot, .address.spoil = spoil(6) };

	choose_peer(slot, &step.address.place, &step.address.port);
	step.address.flow = percent(8);
	add(step);
	belief[slot].connected = true;
}

static void add_send(unsigned int slot)
{
	ADD(SEND, slot, .message.flag = pick(&send_flag_table, belief[slot].is));
}

static void add_sendto(unsigned int slot)
{
	struct step step = { .call = SENDTO, .slot = slot };

	step.message.cmsg = percent(75) ? NO_CMSG : random_below(CMSGS);
	step.message.flag = pick(&send_flag_table, belief[slot].is);
	choose_peer(slot, &step.message.place, &step.message.port);
	step.message.flow = percent(8);
	add(step);
}

static void add_recv(unsigned int slot)
{
	ADD(RECV, slot, .recv_flag = pick(&recv_flag_table, belief[slot].is));
}

static void add_close(unsigned int slot)
{
	ADD(CLOSE, slot);
	belief[slot].used = false;
}

static void add_server(unsigned int mix)
{
	int slot = add_socket(mix, 5);
	unsigned int options = random_below(3);

	if (slot < 0)
		return;
	while (options--)
		add_option(slot);
	add_bind(slot);
	if (belief[slot].is & TCP)
		add_listen(slot);
}

static void add_client(unsigned int mix)
{
	int slot = add_socket(mix, 40), server;

	if (slot < 0)
		return;
	if (percent(30))
		add_option(slot);
	if (percent(30))
		add_bind(slot);
	add_connect(slot);
	if (percent(60))
		add_send(slot);
	server = used_slot(belief[slot].is & (TCP | UDP), true, belief[slot].is & TCP, false);
	if (server >= 0 && belief[server].is & TCP) {
		if (percent(80))
			add_accept(server);
	} else if (server >= 0) {
		if (percent(60))
			add_recv(server);
		if (percent(60))
			add_sendto(server);
	}
	if (percent(30))
		add_recv(slot);
}

/* Closes both ends of a connection, in any order, and maybe the listener. */
static void add_goodbye(unsigned int mix)
{
	int first = used_slot(TCP, true, false, true), second;

	if (first < 0)
		return;
	add_close(first);
	second = used_slot(TCP, percent(50), false, true);
	if (second >= 0)
		add_close(second);
	if (percent(50)) {
		second = used_slot(TCP, true, true, false);
		if (second >= 0)
			add_close(second);
		add_server(0);
	}
}

/* Choose an option by its name; if it has several values, choose one. */
static void add_this_option(unsigned int slot, int level, int name, int value)
{
	unsigned int i;

	for (i = 0; i < sockopt_table.count; i++)
		if (sockopts[i].level == level && sockopts[i].name == name &&
		    *(const int *)sockopts[i].value == value)
			break;
	ADD(SETSOCKOPT, slot, .sockopt = i);
}

/*
 * Three or four sockets that try to share the port, on two addresses that may conflict,
 * and two clients that send to them
 */
static void add_group(unsigned int mix)
{
	unsigned int kind, members = 0, i;
	bool udp = percent(mix), v6 = percent(45);
	int slot[4], server;
	enum place place[2];

	kind = 2 * udp + v6;
	place[0] = pick(&place_table, kinds[kind].is);
	place[1] = percent(50) ? place[0] : v6 ? ANY6 : ANY4;
	for (i = percent(60); i < 4; i++) {
		bool reuse = percent(30), port = percent(85), v6only = v6 && percent(30);
		struct step bind = { .call = BIND };

		slot[members] = free_slot();
		if (slot[members] < 0)
			break;
		bind.slot = slot[members++];
		bind.address.place = place[percent(35)];
		belief[bind.slot] = (struct belief){
			.used = true, .is = kinds[kind].is, .bound = true,
			.place = bind.address.place, .listening = !udp,
		};
		ADD(SOCKET, bind.slot, .socket.kind = kind, .socket.foreign = percent(8));
		if (reuse)
			add_this_option(bind.slot, SOL_SOCKET, SO_REUSEADDR, 1);
		if (port)
			add_this_option(bind.slot, SOL_SOCKET, SO_REUSEPORT, 1);
		if (v6only)
			add_this_option(bind.slot, SOL_IPV6, IPV6_V6ONLY, 1);
		add(bind);
		if (!udp && percent(80))
			ADD(LISTEN, bind.slot);
	}
	for (i = 0; i < 2; i++) {
		bool close = percent(15);

		server = add_socket(udp ? 100 : 0, 60);
		if (server >= 0)
			add_connect(server);
		if (server >= 0 && udp)
			add_send(server);
		if (members && close)
			add_close(slot[random_below(members)]);
	}
	for (i = 0; i < members; i++) {
		if (udp)
			add_recv(slot[i]);
		else
			add_accept(slot[i]);
	}
}

/* ---- the moves, of which a sequence is a random list ---- */

static void add_lone_socket(unsigned int mix)
{
	add_socket(mix, 20);
}

/* Adds a call on a slot, if there is one. */
static void add_on(int slot, void (*add_call)(unsigned int slot))
{
	if (slot >= 0)
		add_call(slot);
}

static void option_on_unbound(unsigned int mix)
{
	add_on(used_slot(0, false, false, false), add_option);
}

static void bind_unbound(unsigned int mix)
{
	add_on(used_slot(0, false, false, false), add_bind);
}

static void listen_on_bound(unsigned int mix)
{
	add_on(used_slot(TCP, true, false, false), add_listen);
}

static void connect_any(unsigned int mix)
{
	add_on(used_slot(0, percent(50), false, false), add_connect);
}

static void add_disconnect(unsigned int slot)
{
	ADD(CONNECT, slot, .address = { .place = ANY4, .port = UNDER_TEST, .spoil = UNSPEC });
}

static void disconnect_bound(unsigned int mix)
{
	add_on(used_slot(0, true, false, true), add_disconnect);
}

static void accept_on_listener(unsigned int mix)
{
	add_on(used_slot(TCP, true, true, false), add_accept);
}

static void send_on_connected(unsigned int mix)
{
	add_on(used_slot(0, true, false, true), add_send);
}

static void sendto_on_any(unsigned int mix)
{
	bool bound = percent(70), udp = percent(80);

	add_on(used_slot(udp ? UDP : 0, bound, false, false), add_sendto);
}

static void recv_on_bound(unsigned int mix)
{
	add_on(used_slot(0, true, false, percent(60)), add_recv);
}

static void add_shutdown(unsigned int slot)
{
	ADD(SHUTDOWN, slot, .how = random_below(3));
}

static void shutdown_connected(unsigned int mix)
{
	add_on(used_slot(0, true, false, true), add_shutdown);
}

/* getsockname(), getpeername() or SO_ERROR, on any slot, used or not */
static void add_query(unsigned int mix)
{
	unsigned int slot = random_below(SLOTS);

	ADD(GETSOCKNAME + random_below(3), slot);
}

static int any_bound_slot(void)
{
	bool connected = percent(50), listening = percent(50);

	return used_slot(0, true, listening, connected);
}

static void change_privilege(unsigned int mix)
{
	ADD(PRIVILEGED, 0, .all_ports = percent(50));
}

static void add_dup(unsigned int slot)
{
	int to = free_slot();

	if (to < 0)
		return;
	ADD(DUP, slot, .to.slot = to);
	belief[to] = belief[slot];
}

static void dup_bound(unsigned int mix)
{
	add_on(any_bound_slot(), add_dup);
}

static void close_bound(unsigned int mix)
{
	add_on(any_bound_slot(), add_close);
}

/* @mix: the percentage of UDP sockets */
static const struct {
	unsigned int weight;
	void (*make)(unsigned int mix);
} moves[] = {
	{ 6, add_server },
	{ 11, add_client },
	{ 3, add_goodbye },
	{ 5, add_group },
	{ 1, change_privilege },
	{ 2, add_lone_socket },
	{ 10, option_on_unbound },
	{ 9, bind_unbound },
	{ 5, listen_on_bound },
	{ 7, connect_any },
	{ 3, disconnect_bound },
	{ 5, accept_on_listener },
	{ 6, send_on_connected },
	{ 7, sendto_on_any },
	{ 7, recv_on_bound },
	{ 3, shutdown_connected },
	{ 3, add_query },
	{ 2, dup_bound },
	{ 5, close_bound },
};

static void add_move(unsigned int mix)
{
	unsigned int roll = random_below(100), i;

	if (free_slot() < 0 && percent(30))
		add_close(random_below(SLOTS));
	for (i = 0; roll >= moves[i].weight; i++)
		roll -= moves[i].weight;
	moves[i].make(mix);
}

/* The last calls show the state of each socket; bind() shows whether it has a port. */
void make_sequence(struct sequence *sequence, __u64 seed, unsigned int steps)
{
	static const unsigned int mixes[] = { 0, 0, 100, 100, 50 };
	unsigned int mix, slot;

	random_state = seed;
	making = sequence;
	sequence->steps = 0;
	memset(belief, 0, sizeof(belief));
	mix = mixes[random_below(ARRAY_SIZE(mixes))];
	thread_chance = percent(40) ? 30 : 0;
	if (percent(70))
		add_server(mix);
	if (percent(50))
		add_client(mix);
	while (sequence->steps < steps)
		add_move(mix);
	for (slot = 0; slot < SLOTS; slot++) {
		enum place any = belief[slot].is & V6 ? ANY6 : ANY4;

		ADD(SO_ERROR_OF, slot);
		ADD(GETSOCKNAME, slot);
		ADD(GETPEERNAME, slot);
		ADD(RECV, slot);
		ADD(BIND, slot, .address = { .place = any, .port = OTHER, .spoil = AS_IS });
	}
}
