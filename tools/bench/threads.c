// SPDX-License-Identifier: GPL-2.0
/*
 * The datagrams per second that threads send through one UDP socket, on port 0 and on
 * an ordinary port in turns, so that other load on the machine affects both.
 *
 * usage: threads THREADS TURNS MILLISECONDS
 *
 * Prints the median over the turns of port 0's rate divided by port N's, and both
 * median rates.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "port0.h"

#define ORDINARY_PORT	7030
#define MAX_THREADS	64
#define MAX_TURNS	1000

struct sender {
	pthread_t thread;
	int fd;
	unsigned int number;
	unsigned long sent;
};

static atomic_bool stop;

static void *keep_sending(void *data)
{
	struct sender *sender = data;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };

	/* Each thread sends to another address, where no socket receives. */
	to.sin_addr.s_addr = htonl(0x7f010001 + sender->number);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		sendto(sender->fd, "", 1, MSG_DONTWAIT, (struct sockaddr *)&to,
		       sizeof(to));
		sender->sent++;
	}
	return NULL;
}

static int bound_socket(int port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
	};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1;

	/* Both sockets are marked, so that they differ only in the port. */
	if (setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one, sizeof(one)))
		err(1, "setsockopt");
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "bind to port %d", port);
	return fd;
}

/* Datagrams a second. */
static double rate(int fd, unsigned int threads, unsigned int ms)
{
	struct timespec pause = { ms / 1000, ms % 1000 * 1000000L }, begin, end;
	struct sender senders[MAX_THREADS] = {};
	unsigned long sent = 0;
	unsigned int i;

	atomic_store(&stop, false);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (i = 0; i < threads; i++) {
		senders[i].fd = fd;
		senders[i].number = i;
		errno = pthread_create(&senders[i].thread, NULL, keep_sending,
				       &senders[i]);
		if (errno)
			err(1, "pthread_create");
	}
	nanosleep(&pause, NULL);
	atomic_store(&stop, true);
	for (i = 0; i < threads; i++) {
		pthread_join(senders[i].thread, NULL);
		sent += senders[i].sent;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	return sent / (end.tv_sec - begin.tv_sec +
		       (end.tv_nsec - begin.tv_nsec) / 1e9);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned int count)
{
	qsort(values, count, sizeof(*values), compare);
	return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

int main(int argc, char **argv)
{
	static double ratios[MAX_TURNS], zeros[MAX_TURNS], ordinaries[MAX_TURNS];
	unsigned int threads, turns, ms, i;
	int zero, ordinary;

	if (argc != 4)
		errx(2, "usage: threads THREADS TURNS MILLISECONDS");
	threads = atoi(argv[1]);
	turns = atoi(argv[2]);
	ms = atoi(argv[3]);
	if (!threads || threads > MAX_THREADS || !turns || turns > MAX_TURNS)
		errx(2, "at most %d threads and %d turns", MAX_THREADS,
		     MAX_TURNS);

	zero = bound_socket(0);
	ordinary = bound_socket(ORDINARY_PORT);
	/* Each port comes first in every other turn. */
	for (i = 0; i < turns; i++) {
		if (i & 1) {
			zeros[i] = rate(zero, threads, ms);
			ordinaries[i] = rate(ordinary, threads, ms);
		} else {
			ordinaries[i] = rate(ordinary, threads, ms);
			zeros[i] = rate(zero, threads, ms);
		}
		ratios[i] = zeros[i] / ordinaries[i];
	}
	printf("%.3f %.0f %.0f\n", median(ratios, turns),
	       median(zeros, turns), median(ordinaries, turns));
	return 0;
}
