// SPDX-License-Identifier: GPL-2.0
/* Prints the results: a table for people, or JSON. */
#include <err.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "port0-probe.h"

#define ICMP_SOMETHING -1

static bool is_json;
static const char *between;	/* printed before the next element */
static int addresses;

static const char *const verdicts[] = {
	[UNTRIED] = "not tried", [ANSWERED] = "answered", [REWRITTEN] = "rewritten",
	[REFUSED] = "refused", [SILENT] = "silent", [STOPPED] = "stopped on this machine",
	[OTHER] = "other",
};

const char *const ways[WAYS] = {
	[CONTROL] = "control", [TO_0] = "to 0", [FROM_0] = "from 0", [FROM_0_TO_0] = "0 to 0",
};

/* Progress, on a terminal only; an empty text removes the last one. */
void progress(const char *format, ...)
{
	va_list args;

	if (!isatty(STDERR_FILENO))
		return;
	fputs("\r\033[K", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fflush(stderr);
}

static const char *icmp_name(int family, int type, int code)
{
	static const struct {
		int family, type, code;
		const char *name;
	} names[] = {
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_NET_UNREACH, "network unreachable" },
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, "host unreachable" },
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, "protocol unreachable" },
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, "port unreachable" },
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_NET_ANO, "network administratively prohibited" },
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_HOST_ANO, "host administratively prohibited" },
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_PKT_FILTERED, "administratively prohibited" },
		{ AF_INET, ICMP_DEST_UNREACH, ICMP_SOMETHING, "destination unreachable" },
		{ AF_INET, ICMP_TIME_EXCEEDED, ICMP_SOMETHING, "time exceeded, a routing loop" },
		{ AF_INET, ICMP_PARAMETERPROB, ICMP_SOMETHING, "parameter problem" },
		{ AF_INET6, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOROUTE, "no route" },
		{ AF_INET6, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADMIN, "administratively prohibited" },
		{ AF_INET6, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR, "address unreachable" },
		{ AF_INET6, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT, "port unreachable" },
		{ AF_INET6, ICMP6_DST_UNREACH, 5, "source address failed policy" },
		{ AF_INET6, ICMP6_DST_UNREACH, 6, "reject route" },
		{ AF_INET6, ICMP6_DST_UNREACH, ICMP_SOMETHING, "destination unreachable" },
		{ AF_INET6, ICMP6_TIME_EXCEEDED, ICMP_SOMETHING, "time exceeded, a routing loop" },
		{ AF_INET6, ICMP6_PARAM_PROB, ICMP_SOMETHING, "parameter problem" },
	};

	for (size_t n = 0; n < sizeof(names) / sizeof(*names); n++) {
		if (names[n].family == family && names[n].type == type &&
		    (names[n].code == code || names[n].code == ICMP_SOMETHING))
			return names[n].name;
	}
	return "unknown";
}

/* The verdict in words. */
static void describe(const struct test *test, const struct result *result, char *text, size_t size)
{
	const union address *seen = &result->seen;
	int port = address_port(seen);
	const char *address = same_host(seen, &result->sent) ? NULL : text_of(seen);

	switch (result->verdict) {
	case ANSWERED:
		if (address && port != address_port(&result->sent))
			snprintf(text, size, "answered, seen as %s port %d", address, port);
		else if (address)
			snprintf(text, size, "answered, seen as %s", address);
		else if (port != address_port(&result->sent))
			snprintf(text, size, "answered, seen as port %d", port);
		else
			snprintf(text, size, "answered");
		break;
	case REWRITTEN:
		snprintf(text, size, "source port rewritten to %d on the way%s%s", port,
			 address ? ", seen as " : "", address ?: "");
		break;
	case REFUSED:
		if (result->icmp_type == NO_ICMP)
			snprintf(text, size, "refused: RST in the name of %s", text_of(&test->host));
		else
			snprintf(text, size, "refused by %s: ICMP %s (type %d, code %d)",
				 text_of(&result->by),
				 icmp_name(result->by.sa.sa_family, result->icmp_type, result->icmp_code),
				 result->icmp_type, result->icmp_code);
		break;
	case OTHER:
		snprintf(text, size, "not answered by port0-probe --serve: %s", result->why);
		break;
	default:
		snprintf(text, size, "%s%s%s", verdicts[result->verdict], *result->why ? ": " : "",
			 result->why);
	}
}

static void describe_trace(const struct trace *trace, const struct trace *control, char *text,
			   size_t size)
{
	int len = 0;

	if (trace->last)
		len = snprintf(text, size, "answers up to hop %d, %s", trace->last,
			       text_of(&trace->hops[trace->last - 1]));
	else if (!trace->end)
		len = snprintf(text, size, "no hop answers");
	if (trace->end)
		len += snprintf(text + len, size - (size_t)len, "%s%s with hop limit %d",
				len ? ", " : "", trace->verdict == REFUSED ? "refused" :
				trace->verdict == OTHER ? "another program answers" : "answered",
				trace->end);
	else if (control->end && trace->last && trace->last == control->end - 1)
		len += snprintf(text + len, size - (size_t)len, ", the last before the host");
	if (trace == control)
		return;

	text += len;
	size -= (size_t)len;
	if (control->end)
		snprintf(text, size, "; the control %s, %d hop%s",
			 control->verdict == REFUSED ? "is refused" :
			 control->verdict == OTHER ? "is answered by another program" : "passes",
			 control->end,
			 control->end > 1 ? "s" : "");
	else if (control->last)
		snprintf(text, size, "; the control up to hop %d, %s", control->last,
			 text_of(&control->hops[control->last - 1]));
	else
		snprintf(text, size, "; nor does any hop for the control");
}

static bool is_one(const struct result *result)
{
	return result->verdict == ANSWERED || result->verdict == REWRITTEN;
}

/* ---- JSON ---- */

/* Other bytes than ASCII, which a name may have, need not be UTF-8, as JSON has to be. */
static void json_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text < ' ' || *text > '~' ? '?' : *text);
	}
	putchar('"');
}

static void json_trace(const char *name, const struct trace *trace)
{
	printf(",\n     \"%s\": {\"end\": ", name);
	if (trace->end)
		printf("%d", trace->end);
	else
		printf("null");
	printf(", \"last\": ");
	if (trace->last)
		printf("%d", trace->last);
	else
		printf("null");
	printf(", \"hops\": [");
	for (int n = 0; n < trace->count; n++) {
		if (n)
			printf(", ");
		if (trace->hops[n].sa.sa_family)
			json_string(text_of(&trace->hops[n]));
		else
			printf("null");
	}
	printf("]}");
}

static void json_result(const struct test *test, const struct result *result,
			const struct result *control, const struct trace *trace,
			const struct trace *control_trace, const char *text)
{
	printf("%s    {\"protocol\": \"%s\", \"family\": %d, \"way\": \"%s\", \"verdict\": \"%s\", \"passes\": %s",
	       between, test->type == SOCK_STREAM ? "tcp" : "udp",
	       test->host.sa.sa_family == AF_INET ? 4 : 6, ways[test->way],
	       result->verdict == STOPPED ? "stopped" : verdicts[result->verdict],
	       passes(result) ? "true" : "false");
	printf(", \"control\": \"%s\"", control->verdict == STOPPED ? "stopped" :
	       verdicts[control->verdict]);
	printf(",\n     \"text\": ");
	json_string(text);
	printf(", \"ms\": %d", result->ms);
	if (is_one(result)) {
		printf(", \"source_port\": %d, \"seen\": {\"address\": ", address_port(&result->sent));
		json_string(text_of(&result->seen));
		printf(", \"port\": %d}", address_port(&result->seen));
	}
	if (result->verdict == REFUSED) {
		printf(", \"by\": ");
		json_string(text_of(result->icmp_type == NO_ICMP ? &test->host : &result->by));
		printf(", \"how\": \"%s\"", result->icmp_type == NO_ICMP ? "rst" : "icmp");
		if (result->icmp_type != NO_ICMP)
			printf(", \"icmp_type\": %d, \"icmp_code\": %d", result->icmp_type,
			       result->icmp_code);
	}
	if (*result->why) {
		printf(", \"why\": ");
		json_string(result->why);
	}
	if (trace->done) {
		json_trace("trace", trace);
		if (trace != control_trace)
			json_trace("control_trace", control_trace);
	}
	putchar('}');
	between = ",\n";
}

/* ---- the report ---- */

void report_begin(bool json, const char *host, int control, bool module)
{
	is_json = json;
	if (!json)
		return;
	printf("{\"host\": ");
	json_string(host);
	printf(", \"control_port\": %d, \"module\": %s, \"addresses\": [", control,
	       module ? "true" : "false");
}

/* @untried: why nothing is tried on this address, or NULL. */
void report_address(const union address *host, const union address *source, const char *untried)
{
	progress("%s", "");
	if (untried)
		warnx("%s: not tried: %s", text_of(host), untried);
	if (!is_json) {
		if (untried)
			return;
		printf("%s%s", addresses++ ? "\n" : "", text_of(host));
		if (source->sa.sa_family)
			printf(", from %s", text_of(source));
		puts("");
		fflush(stdout);
		return;
	}
	printf("%s\n  {\"address\": ", addresses++ ? "\n  ]}," : "");
	json_string(text_of(host));
	if (source->sa.sa_family) {
		printf(", \"source\": ");
		json_string(text_of(source));
	}
	if (untried) {
		printf(", \"why\": ");
		json_string(untried);
	}
	printf(", \"tests\": [\n");
	between = "";
}

void report(const struct test *test, const struct result *result, const struct result *control,
	    const struct trace *trace, const struct trace *control_trace)
{
	char text[600];

	describe(test, result, text, sizeof(text));
	progress("%s", "");
	if (is_json) {
		json_result(test, result, control, trace, control_trace, text);
		return;
	}
	printf("  %s IPv%d  %-8s %s\n", test->type == SOCK_STREAM ? "TCP" : "UDP",
	       test->host.sa.sa_family == AF_INET ? 4 : 6, ways[test->way], text);
	if (trace->done) {
		describe_trace(trace, control_trace, text, sizeof(text));
		printf("                     %s\n", text);
	}
	fflush(stdout);
}

void report_end(int status)
{
	if (is_json)
		printf("%s], \"status\": %d}\n", addresses ? "\n  ]}\n" : "", status);
}
