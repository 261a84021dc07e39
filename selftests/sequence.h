/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sequences of socket calls, which parity_sequences plays on two sides.
 *
 * A sequence is a plain list of steps that name their sockets by slot. A step does nothing
 * if its slot has no socket, or if it would open a socket in a slot that has one. So any
 * part of a sequence is a sequence as well.
 *
 *	sequence_table.c	the calls, and the rows that they take arguments from
 *	sequence_make.c		makes a sequence from a seed
 *	sequence_play.c		plays it on one side and writes a transcript
 *	sequence_shrink.c	compares the sides, and shrinks a sequence that differs
 *	sequence_show.c		prints it as C-like calls
 */
#ifndef PORT0_SEQUENCE_H
#define PORT0_SEQUENCE_H

#include <netinet/tcp.h>
#include <netinet/udp.h>

#include "parity_known.h"
#include "sides.h"

#define SLOTS		8
#define MAX_STEPS	240
#define LINE		512
/* Steps that each sequence ends with, and the longest move, see make_sequence(). */
#define EPILOGUE	(5 * SLOTS + 50)

/* ---- arguments ---- */

/* The kind of a socket, and the kinds that a row of a table is for */
enum { V4 = 1, V6 = 2, TCP = 4, UDP = 8, ALL = V4 | V6 | TCP | UDP };

/* The first members of every row of a table. Rows are chosen by their weights. */
struct row {
	const char *text;
	unsigned int needs, weight;
};

struct table {
	const void *rows;
	size_t size;
	unsigned int count;
};

struct kind {
	const char *text;
	int family, type;
	unsigned int is;
};

/* The IPv4 addresses come first, and in the same order as v4-mapped ones. */
enum place {
	ANY4, HOME4, SECOND4, FAR4, DIRECTED4, GROUP4, BROADCAST4,
	ANY6, HOME6, SECOND6, LINK6, FAR6, GROUP6,
	ANY_MAPPED, HOME_MAPPED, SECOND_MAPPED, FAR_MAPPED,
};

/* ZERO is "any ephemeral port"; only an unmarked socket can be bound so. */
enum port { UNDER_TEST, OTHER, ZERO };

/* Ways to damage the address that is passed to bind() and connect() */
enum spoil { AS_IS, UNSPEC, LOCAL, EMPTY, SHORT, LONG, TOO_LONG, SPOILS };

/* A link-local address of the loopback device, whose index is its scope */
#define LINK_IP6	"fe80::2"
#define LO_INDEX	1

/* A traffic class, at its place in sin6_flowinfo */
#define FLOW		0x02a00000

/* Ancillary data of a sendmsg() */
enum cmsg { NO_CMSG, SOURCE_CMSG, TTL_CMSG, TOS_CMSG, SEGMENT_CMSG, CMSGS };

struct sockopt {
	struct row row;
	int level, name;
	const void *value;
	socklen_t len;
};

/* A value of SO_REUSEPORT: also attach a program to the group */
#define PROGRAM_WANTED	2

struct flag {
	struct row row;
	int flag;
};

#define BACKLOGS	3

/* Sockets: a TCP and a UDP one for each of IPv4 and IPv6. */
extern const struct kind kinds[4];
extern const struct row places[];
extern const struct sockopt sockopts[];
extern const struct flag send_flags[], recv_flags[];
extern const int backlogs[BACKLOGS];
extern const struct table place_table, sockopt_table, send_flag_table, recv_flag_table;

/* ---- steps ---- */

enum call {
	SOCKET, SETSOCKOPT, BIND, LISTEN, CONNECT, ACCEPT, SEND, SENDTO, RECV,
	SHUTDOWN, GETSOCKNAME, GETPEERNAME, SO_ERROR_OF, DUP, CLOSE, PRIVILEGED, CALLS,
};

struct step {
	enum call call;
	unsigned int slot;
	bool thread;					/* a second thread makes the call */
	union {
		struct {
			unsigned int kind;
			bool unmarked, foreign;		/* foreign: uid 1 owns it */
		} socket;
		unsigned int sockopt;
		unsigned int backlog;
		struct {
			enum place place;
			enum port port;
			enum spoil spoil;
			bool flow;			/* the address has FLOW */
			bool weak;			/* no CAP_NET_BIND_SERVICE: BIND */
		} address;				/* BIND, CONNECT */
		struct {
			unsigned int slot;
			bool named;			/* ACCEPT with an address */
		} to;					/* ACCEPT, DUP */
		struct {
			unsigned int flag;
			enum place place;
			enum port port;
			enum cmsg cmsg;
			bool flow;
		} message;				/* SEND, SENDTO */
		unsigned int recv_flag;
		unsigned int how;			/* SHUTDOWN */
		bool all_ports;				/* PRIVILEGED: or none */
	};
};

struct sequence {
	struct step step[MAX_STEPS];
	unsigned int steps;
};

struct transcript {
	char line[MAX_STEPS][LINE];
};

/* Counts of what happened on a side, to prove that something did */
struct tally {
	unsigned long calls, held, listens, accepts, connects, sends, bytes;
};

struct arena;
struct play;

struct operation {
	/* Makes the call and writes its line of the transcript. */
	void (*play)(struct play *play, const struct step *step);
	void (*show)(const struct step *step);
	/* Tell whether this call would show a known difference, see parity_known.h. */
	bool (*left_out)(const struct play *play, const struct step *step);
	bool opens;		/* needs an empty slot, not a socket */
	bool slotless;		/* needs neither */
	bool sends;		/* packets may be in flight when it returns */
};

extern const struct operation operations[CALLS];

/* Values that make the ports of both sides privileged, or neither */
static inline const char *privileged_start(bool all_ports)
{
	return all_ports ? "1024" : "0";
}

/* ---- sequence_make.c ---- */

void make_sequence(struct sequence *sequence, __u64 seed, unsigned int steps);

/* ---- sequence_play.c ---- */

/* A side that sequences are played on, one after the other. */
struct arena {
	struct side side;
	/*
	 * @fence: see fence_open(). @sockstat: files that show whether sockets are left
	 */
	int fence, sockstat[2];
	unsigned int renewals;
	struct tally tally;
	struct transcript lines;
};

extern unsigned int left_out[KNOWN_ROWS];

void arena_open(struct arena *arena);
void play_sequence(struct arena *arena, const struct sequence *sequence);

void play_socket(struct play *play, const struct step *step);
void play_setsockopt(struct play *play, const struct step *step);
void play_bind(struct play *play, const struct step *step);
void play_listen(struct play *play, const struct step *step);
void play_connect(struct play *play, const struct step *step);
void play_accept(struct play *play, const struct step *step);
void play_send(struct play *play, const struct step *step);
void play_sendto(struct play *play, const struct step *step);
void play_recv(struct play *play, const struct step *step);
void play_shutdown(struct play *play, const struct step *step);
void play_getsockname(struct play *play, const struct step *step);
void play_getpeername(struct play *play, const struct step *step);
void play_so_error(struct play *play, const struct step *step);
void play_dup(struct play *play, const struct step *step);
void play_close(struct play *play, const struct step *step);
void play_privileged(struct play *play, const struct step *step);
bool leave_out_send(const struct play *play, const struct step *step);
bool leave_out_sockopt(const struct play *play, const struct step *step);

/* ---- sequence_show.c ---- */

void show_sequence(const struct sequence *sequence, const struct arena *left,
		   const struct arena *right);

void show_socket(const struct step *step);
void show_setsockopt(const struct step *step);
void show_bind(const struct step *step);
void show_listen(const struct step *step);
void show_connect(const struct step *step);
void show_accept(const struct step *step);
void show_send(const struct step *step);
void show_sendto(const struct step *step);
void show_recv(const struct step *step);
void show_shutdown(const struct step *step);
void show_getsockname(const struct step *step);
void show_getpeername(const struct step *step);
void show_so_error(const struct step *step);
void show_dup(const struct step *step);
void show_close(const struct step *step);
void show_privileged(const struct step *step);

/* ---- sequence_shrink.c ---- */

bool same_line(const char *left, const char *right);
bool differs(struct arena *left, struct arena *right, const struct sequence *sequence);
bool differs_again(struct arena *left, struct arena *right, const struct sequence *sequence);
void shrink(struct arena *left, struct arena *right, struct sequence *sequence);

#endif /* PORT0_SEQUENCE_H */
