/* SPDX-License-Identifier: GPL-2.0 */
/* Declarations that the parts of port0-probe share */
#ifndef PORT0_PROBE_H
#define PORT0_PROBE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Exit status */
enum { ALL_PASS, SOME_FAIL, NO_CONTROL, FAILED };

/*
 * A question is this word, a token, spaces and a newline. Its answer is this
 * word, the token, and the address and port that it came from. A question that
 * is shorter than its answer is not answered.
 */
#define QUESTION	"port0-probe? "
#define ANSWER		"port0-probe: "
#define TOKEN_MAX	32
#define QUESTION_SIZE	96	/* longer than any answer to a token of 16 */

#define NO_MODULE	"the kernel module port0 is not loaded: as root, run modprobe port0 or insmod port0.ko"
#define NO_INTERFACE	"a link-local address takes an interface: ADDRESS%INTERFACE"
#define NO_BROADCAST	"a broadcast address is not that of one host"
#define NO_RIGHT	"no right to ports below 1024: run it as root, give it CAP_NET_BIND_SERVICE, or set net.ipv4.ip_unprivileged_port_start=0"

union address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

enum way { CONTROL, TO_0, FROM_0, FROM_0_TO_0, WAYS };

struct test {
	union address host;	/* its port is not used */
	union address source;	/* the source address of packets to it; sa_family 0: unknown */
	int type;		/* SOCK_STREAM or SOCK_DGRAM */
	enum way way;
	int control;		/* the ordinary port */
	int port;		/* the source port of a test from an ordinary one; 0: any */
};

enum verdict {
	UNTRIED, ANSWERED, REWRITTEN, REFUSED, SILENT, STOPPED,
	OTHER,			/* something other than port0-probe --serve answers */
};

#define NO_ICMP (-1)

struct result {
	enum verdict verdict;
	union address by;	/* the sender of the refusal; sa_family 0 if unknown */
	union address sent;	/* the source address and port as sent */
	union address seen;	/* the source address and port that HOST has received */
	int icmp_type, icmp_code;	/* NO_ICMP: a RST, if refused */
	bool again;		/* closed by --serve, because its rate limit was reached */
	int ms;
	char why[400];
};

#define MAX_HOPS 64

struct trace {
	bool done;
	int count;		/* hops that were tried */
	int last;		/* the last hop that answered, counted from 1; 0: none */
	int end;		/* the hop limit that got an answer or a refusal; 0: none */
	enum verdict verdict;	/* at that end */
	union address hops[MAX_HOPS];	/* sa_family 0: silent */
};

/* port0-probe-ask.c */
socklen_t address_len(const union address *address);
int address_port(const union address *address);
void set_port(union address *address, int port);
bool same_host(const union address *a, const union address *b);
void unmap(union address *address);
void make_printable(char *text);
const char *text_of(const union address *address);
void check_interface(const char *name, const char *whole);
bool is_without_interface(const union address *address);
int64_t now_ms(void);
int mark(int fd);
bool is_on_port_0(int fd);
const char *why_no_mark(int error);
bool is_expired(const struct result *result);
bool passes(const struct result *result);
void ask(const struct test *test, int hops, int wait, struct result *result);

/* port0-probe-blame.c */
enum call { SOCKET, BIND, CONNECT, SEND };
bool may_bind_low(void);
void blame(enum call call, int err, const struct test *test, char *why, size_t size);

/* port0-probe-trace.c */
void trace_route(const struct test *test, int port, const struct trace *control, bool arrives,
		 int most, struct trace *trace);

/* port0-probe-report.c */
extern const char *const ways[WAYS];
void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void report_begin(bool json, const char *host, int control, bool module);
void report_address(const union address *host, const union address *source, const char *untried);
void report(const struct test *test, const struct result *result, const struct result *control,
	    const struct trace *trace, const struct trace *control_trace);
void report_end(int status);

/* port0-probe-serve.c */
void serve(char **addresses, int control, unsigned int rate) __attribute__((noreturn));

#endif /* PORT0_PROBE_H */
