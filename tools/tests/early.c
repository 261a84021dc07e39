// SPDX-License-Identifier: GPL-2.0
/*
 * A library that binds a socket before main(), and prints whether the module
 * says that this is literal port 0. If it is preloaded after libport0.so, its
 * constructor runs before that library's.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "port0.h"

__attribute__((constructor)) static void early(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int literal = 0;
	socklen_t len = sizeof(literal);

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    getsockopt(fd, SOL_IP, IP_BOUND_PORT_ZERO, &literal, &len))
		perror("early");
	printf("early %d\n", literal);
}
