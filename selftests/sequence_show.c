// SPDX-License-Identifier: GPL-2.0
/*
 * Prints a sequence as C-like calls, with what each side answered.
 */
#include "sequence.h"

static const char * const port_name[] = { "PORT", "OTHER", "0" };

static const char * const spoil_name[SPOILS] = {
	"", ", family AF_UNSPEC", ", family AF_UNIX", ", length 0", ", length 12",
	", length 128", ", length 129",
};

static const char * const cmsg_name[CMSGS] = {
	"", ", PKTINFO source", ", TTL 3", ", TOS 8", ", UDP_SEGMENT 3",
};

void show_socket(const struct step *step)
{
	printf("s%u = socket(%s)%s%s", step->slot, kinds[step->socket.kind].text,
	       step->socket.unmarked ? " /* unmarked */" : "",
	       step->socket.foreign ? " /* as uid 1 */" : "");
}

void show_setsockopt(const struct step *step)
{
	printf("setsockopt(s%u, %s)", step->slot, sockopts[step->sockopt].row.text);
}

static void show_with_address(const char *call, const struct step *step)
{
	printf("%s(s%u, [%s]:%s%s%s)%s", call, step->slot, places[step->address.place].text,
	       port_name[step->address.port], spoil_name[step->address.spoil],
	       step->address.flow ? ", flow" : "",
	       step->address.weak ? " /* without CAP_NET_BIND_SERVICE */" : "");
}

void show_bind(const struct step *step)
{
	show_with_address("bind", step);
}

void show_connect(const struct step *step)
{
	show_with_address("connect", step);
}

void show_listen(const struct step *step)
{
	printf("listen(s%u, %d)", step->slot, backlogs[step->backlog]);
}

void show_accept(const struct step *step)
{
	printf("s%u = accept(s%u, %s)", step->to.slot, step->slot,
	       step->to.named ? "&name" : "NULL");
}

void show_send(const struct step *step)
{
	printf("send(s%u, 8 bytes, %s)", step->slot, send_flags[step->message.flag].row.text);
}

void show_sendto(const struct step *step)
{
	printf("sendto(s%u, 8 bytes, %s, [%s]:%s%s%s)", step->slot,
	       send_flags[step->message.flag].row.text, places[step->message.place].text,
	       port_name[step->message.port], cmsg_name[step->message.cmsg],
	       step->message.flow ? ", flow" : "");
}

void show_recv(const struct step *step)
{
	printf("recv(s%u, %s)", step->slot, recv_flags[step->recv_flag].row.text);
}

void show_shutdown(const struct step *step)
{
	printf("shutdown(s%u, %u)", step->slot, step->how);
}

void show_getsockname(const struct step *step)
{
	printf("getsockname(s%u)", step->slot);
}

void show_getpeername(const struct step *step)
{
	printf("getpeername(s%u)", step->slot);
}

void show_so_error(const struct step *step)
{
	printf("getsockopt(s%u, SO_ERROR)", step->slot);
}

void show_dup(const struct step *step)
{
	printf("s%u = dup(s%u)", step->to.slot, step->slot);
}

void show_close(const struct step *step)
{
	printf("close(s%u)", step->slot);
}

void show_privileged(const struct step *step)
{
	printf("sysctl(ip_unprivileged_port_start, %s)", privileged_start(step->all_ports));
}

/* The steps that did something on either side. */
void show_sequence(const struct sequence *sequence, const struct arena *left,
		   const struct arena *right)
{
	unsigned int i;

	for (i = 0; i < sequence->steps; i++) {
		const struct step *step = &sequence->step[i];
		const char *l = left->lines.line[i], *r = right->lines.line[i];

		if (!*l && !*r)
			continue;
		printf("#   ");
		operations[step->call].show(step);
		printf("%s;\t/* %s */\n", step->thread ? " by a second thread" : "", l);
		if (!same_line(l, r))
			printf("#   ^^^ %s: %s\n", right->side.name, r);
	}
}
