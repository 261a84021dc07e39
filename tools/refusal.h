/* SPDX-License-Identifier: GPL-2.0 */
/* Why the kernel refuses a socket port 0, in words. */
#ifndef PORT0_REFUSAL_H
#define PORT0_REFUSAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* The size of the buffer for a reason */
#define REFUSAL_SIZE 1024

/**
 * struct attempt - what was refused
 * @domain: of the socket: AF_INET or AF_INET6
 * @type: SOCK_STREAM or SOCK_DGRAM
 * @protocol: IPPROTO_TCP, ...
 * @addr: the address, with port 0 in it
 * @len: its length
 * @asked: the port that the program named, which port0-run has mapped; 0: none
 * @was_root: the program was started by root
 */
struct attempt {
	int domain, type, protocol;
	const struct sockaddr *addr;
	socklen_t len;
	int asked;
	bool was_root;
};

void text_add(char *buf, size_t size, const char *text);
void text_add_number(char *buf, size_t size, unsigned long long number);

void refusal_of_bind(char *buf, size_t size, int err, const struct attempt *attempt);
void refusal_of_option(char *buf, size_t size, int err);

#endif /* PORT0_REFUSAL_H */
