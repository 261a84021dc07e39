// SPDX-License-Identifier: GPL-2.0
/*
 * port0-probe - does the network pass port 0 to a host, and if not, where is it
 * dropped?
 *
 * This file has the options, the order of the tests and the exit status. A single test
 * is in port0-probe-ask.c, --serve in port0-probe-serve.c.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "port0-probe.h"

#define MAX_ADDRESSES 16

static const char usage[] =
"usage: port0-probe [OPTION...] HOST\n"
"       port0-probe --serve [--control PORT] [--rate N] [ADDR...]\n"
"\n"
"Finds out whether the network passes TCP and UDP to and from port 0 between here\n"
"and HOST, where port0-probe --serve must run. The same is tried on an ordinary\n"
"port, the control. See port0-probe(1).\n"
"\n"
"  --serve         answer on port 0 and the control port of ADDR (numeric;\n"
"                  default: of all addresses); needs the kernel module port0\n"
"  --rate N        at most N answers per second to one address (1 to 10000,\n"
"                  default 50), and 20 times as many in all; UDP and TCP are\n"
"                  counted apart\n"
"  --control PORT  the ordinary port (default 7030); HOST must have the same\n"
"  -4, -6          IPv4 only, IPv6 only\n"
"  --tcp, --udp    TCP only, UDP only\n"
"  --to            only tests to port 0 from an ordinary one; they need neither\n"
"                  the module nor privilege on this machine\n"
"  --from          only tests from port 0\n"
"  --trace         if HOST does not answer a test, find the hop that drops it\n"
"  --hops N        trace up to N hops (1 to 64, default 30)\n"
"  --timeout SEC   how long to wait for each answer (1 to 60, default 4)\n"
"  --json          print JSON\n"
"  --help, --version\n"
"\n"
"The exit status is 0 if all tests are answered, 1 if one is not, 2 if no control\n"
"is, 3 if a test could not be tried and all others are answered, or on an error.\n";

static struct {
	const char *host;
	int family, control, hops, timeout;
	bool tcp, udp, to, from, trace, json;
} options = { .control = 7030, .hops = 30, .timeout = 4 };

/* The results over all addresses */
static struct {
	int untried, failed, controls, good_controls;
} found;

static void resolve(union address hosts[MAX_ADDRESSES], int *count)
{
	struct addrinfo hints = { .ai_family = options.family, .ai_socktype = SOCK_STREAM }, *list;
	size_t len = strlen(options.host);
	bool brackets = len > 2 && options.host[0] == '[' && options.host[len - 1] == ']';
	char *name = strndup(options.host + brackets, len - 2 * brackets);
	int rc = name && *name ? getaddrinfo(name, NULL, &hints, &list) : EAI_NONAME;

	if (rc && name)
		check_interface(name, options.host);
	if (rc)
		errx(FAILED, "%s: the name does not resolve%s: %s", options.host,
		     options.family == AF_INET ? " to an IPv4 address" :
		     options.family == AF_INET6 ? " to an IPv6 address" : "",
		     rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
	*count = 0;
	for (struct addrinfo *one = list; one; one = one->ai_next) {
		union address address = { };
		bool known = false;

		if (one->ai_family != AF_INET && one->ai_family != AF_INET6)
			continue;
		memcpy(&address, one->ai_addr, one->ai_addrlen);
		unmap(&address);
		for (int n = 0; n < *count; n++)
			known |= !memcmp(&hosts[n], &address, sizeof(address));
		if (known)
			continue;
		if (*count == MAX_ADDRESSES) {
			warnx("%s has more than %d addresses, the others are not tried",
			      options.host, MAX_ADDRESSES);
			found.untried++;
			break;
		}
		hosts[(*count)++] = address;
	}
	freeaddrinfo(list);
	free(name);
}

/* Returns 0, or the errno of marking a socket, which only tests from port 0 need. */
static int try_mark(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err(FAILED, "cannot open a socket");
	error = mark(fd);
	close(fd);
	return error;
}

/* Why packets to @host are not for one host, or NULL */
static const char *why_no_host(const union address *host)
{
	const struct in6_addr *v6 = &host->v6.sin6_addr;
	uint32_t v4 = ntohl(host->v4.sin_addr.s_addr);
	bool is4 = host->sa.sa_family == AF_INET;

	if (is4 ? v4 == INADDR_ANY : IN6_IS_ADDR_UNSPECIFIED(v6))
		return "this is no host's address: name one, as 127.0.0.1 or ::1 for this machine";
	if (is4 ? IN_MULTICAST(v4) : IN6_IS_ADDR_MULTICAST(v6))
		return "a multicast address is not that of one host";
	if (is4 && v4 == INADDR_BROADCAST)
		return NO_BROADCAST;
	return NULL;
}

/* The kernel lets a socket connect to a broadcast address only after this option. */
static bool is_broadcast(int fd, const union address *host)
{
	int one = 1;

	return !setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one)) &&
	       !connect(fd, &host->sa, address_len(host));
}

/*
 * Gets the source address of packets to @host from a connected socket that sends
 * nothing. Returns NULL, or why packets cannot be sent. If a control group or a route
 * forbids connect(), the address stays unknown: that may depend on protocol and port.
 */
static const char *find_source(const union address *host, union address *source)
{
	const char *trouble = why_no_host(host);
	union address to = *host;
	socklen_t len = sizeof(*source);
	static char why[100];
	int fd, error = 0;

	memset(source, 0, sizeof(*source));
	if (trouble)
		return trouble;
	fd = socket(host->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno == EAFNOSUPPORT ? "this kernel has no such addresses" : NULL;
	set_port(&to, options.control);
	if (connect(fd, &to.sa, address_len(&to)))
		error = errno;
	else if (getsockname(fd, &source->sa, &len))
		source->sa.sa_family = 0;
	if (error == EACCES && is_broadcast(fd, &to))
		trouble = NO_BROADCAST;
	close(fd);
	if (error == EINVAL && is_without_interface(&to))
		return NO_INTERFACE;
	if (trouble || !error || error == EPERM || error == EACCES || error == EINVAL)
		return trouble;
	snprintf(why, sizeof(why), "no route: %s", strerror(error));
	return why;
}

static void count(const struct test *test, const struct result *result)
{
	if (result->verdict == UNTRIED) {
		found.untried++;
		return;
	}
	if (!passes(result))
		found.failed++;
	if (test->way == CONTROL) {
		found.controls++;
		found.good_controls += passes(result);
	}
}

static bool wants_trace(const struct result *result)
{
	return options.trace && (result->verdict == SILENT ||
				 (result->verdict == REFUSED && result->icmp_type == NO_ICMP));
}

static bool is_wanted(enum way way)
{
	if (way == TO_0)
		return options.to || !options.from;
	if (way == FROM_0 || way == FROM_0_TO_0)
		return options.from || !options.to;
	return true;
}

static void probe_protocol(struct test *test)
{
	const char *name = test->type == SOCK_STREAM ? "TCP" : "UDP";
	struct trace traces[2], *control_trace = &traces[0];
	struct result control = { };

	memset(traces, 0, sizeof(traces));
	for (enum way way = CONTROL; way < WAYS; way++) {
		struct trace *trace = &traces[way != CONTROL];
		struct result result;

		if (!is_wanted(way))
			continue;
		test->way = way;
		progress("%s: %s, %s ...", text_of(&test->host), name, ways[way]);
		ask(test, 0, options.timeout * 1000, &result);
		if (way == CONTROL)
			control = result;
		trace->done = false;
		if (wants_trace(&result)) {
			progress("%s: %s, trace of %s ...", text_of(&test->host), name, ways[way]);
			if (!control_trace->done) {
				test->way = CONTROL;
				trace_route(test, address_port(&control.sent), NULL,
					    passes(&control), options.hops, control_trace);
				test->way = way;
			}
			if (way != CONTROL)
				trace_route(test, address_port(&result.sent), control_trace, false,
					    options.hops, trace);
		}
		count(test, &result);
		report(test, &result, &control, trace, control_trace);
	}
}

static int probe(void)
{
	union address hosts[MAX_ADDRESSES];
	int count_of_hosts, no_mark = try_mark();

	resolve(hosts, &count_of_hosts);
	report_begin(options.json, options.host, options.control,
		     no_mark != ENOPROTOOPT);
	for (int n = 0; n < count_of_hosts; n++) {
		struct test test = { .host = hosts[n], .control = options.control };
		const char *trouble = find_source(&hosts[n], &test.source);

		if (trouble) {
			found.untried++;
			report_address(&test.host, &test.source, trouble);
			continue;
		}
		report_address(&test.host, &test.source, NULL);
		if (options.tcp || !options.udp) {
			test.type = SOCK_STREAM;
			probe_protocol(&test);
		}
		if (options.udp || !options.tcp) {
			test.type = SOCK_DGRAM;
			probe_protocol(&test);
		}
	}
	if (no_mark && (options.from || !options.to))
		warnx("from port 0 not tried: %s", why_no_mark(no_mark));
	if (found.controls && !found.good_controls) {
		warnx("no control is answered: does port0-probe --serve run on %s, with --control %d?",
		      options.host, options.control);
		return NO_CONTROL;
	}
	if (found.failed)
		return SOME_FAIL;
	return found.untried ? FAILED : ALL_PASS;
}

static int number(const char *option, const char *text, int least, int most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value < (unsigned long)least ||
	    value > (unsigned long)most)
		errx(FAILED, "%s %s: it must be a number from %d to %d", option, text, least, most);
	return (int)value;
}

/*
 * If a standard descriptor is closed, no socket may get its number, since output would
 * be sent there. /dev/null is opened in the wrong direction, so that using it fails as
 * on a closed one.
 */
static void reserve_standard(void)
{
	for (int fd = 0; fd < 3; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", fd ? O_RDONLY : O_WRONLY);
	}
}

static int say(const char *text)
{
	if (fputs(text, stdout) < 0 || fflush(stdout))
		err(FAILED, "cannot write");
	return 0;
}

int main(int argc, char **argv)
{
	enum { SERVE = 1, RATE, PORT, TCP, UDP, TO, FROM, TRACE, HOPS, TIMEOUT, JSON, HELP, VERSION_ };
	static const struct option list[] = {
		{ "serve", no_argument, NULL, SERVE },
		{ "rate", required_argument, NULL, RATE },
		{ "control", required_argument, NULL, PORT },
		{ "tcp", no_argument, NULL, TCP },
		{ "udp", no_argument, NULL, UDP },
		{ "to", no_argument, NULL, TO },
		{ "from", no_argument, NULL, FROM },
		{ "trace", no_argument, NULL, TRACE },
		{ "hops", required_argument, NULL, HOPS },
		{ "timeout", required_argument, NULL, TIMEOUT },
		{ "json", no_argument, NULL, JSON },
		{ "help", no_argument, NULL, HELP },
		{ "version", no_argument, NULL, VERSION_ },
		{ }
	};
	bool is_server = false, is_client = false;
	int option, rate = 0, status;

	reserve_standard();
	while ((option = getopt_long(argc, argv, "46", list, NULL)) > 0) {
		is_client |= option != SERVE && option != RATE && option != PORT;
		switch (option) {
		case '4':
		case '6':
			if (options.family && options.family != (option == '4' ? AF_INET : AF_INET6))
				errx(FAILED, "give -4 or -6, or neither: the default is both families");
			options.family = option == '4' ? AF_INET : AF_INET6;
			break;
		case SERVE:
			is_server = true;
			break;
		case RATE:
			rate = number("--rate", optarg, 1, 10000);
			break;
		case PORT:
			options.control = number("--control", optarg, 1, 65535);
			break;
		case TCP:
			options.tcp = true;
			break;
		case UDP:
			options.udp = true;
			break;
		case TO:
			options.to = true;
			break;
		case FROM:
			options.from = true;
			break;
		case TRACE:
			options.trace = true;
			break;
		case HOPS:
			options.hops = number("--hops", optarg, 1, MAX_HOPS);
			break;
		case TIMEOUT:
			options.timeout = number("--timeout", optarg, 1, 60);
			break;
		case JSON:
			options.json = true;
			break;
		case HELP:
			return say(usage);
		case VERSION_:
			return say("port0-probe " VERSION "\n");
		default:
			errx(FAILED, "see port0-probe --help");
		}
	}
	argv += optind;
	if (is_server && is_client)
		errx(FAILED, "--serve takes --control, --rate and addresses only, see port0-probe --help");
	if (is_server)
		serve(argv, options.control, rate ? (unsigned int)rate : 50);
	if (rate)
		errx(FAILED, "--rate goes with --serve");
	if (!*argv)
		errx(FAILED, "no HOST, see port0-probe --help");
	if (argv[1])
		errx(FAILED, "%s: one HOST at a time", argv[1]);
	options.host = argv[0];
	status = probe();
	progress("%s", "");
	report_end(status);
	if (fflush(stdout) || ferror(stdout))
		err(FAILED, "cannot write");
	return status;
}
