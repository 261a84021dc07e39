/* SPDX-License-Identifier: GPL-2.0 */
/* Declarations that the parts of libport0.so share */
#ifndef PORT0_LIBPORT0_H
#define PORT0_LIBPORT0_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint8_t ports[65536 / 8];

/**
 * struct settings - the options of port0-run
 * @mapped: ports whose bind() means port 0
 * @reached: ports that mean port 0 as a destination
 * @reached_name: the lowest of @reached, or 0
 * @first: the first bind() to 0 on an address means port 0
 * @from: sockets without a port of their own leave from port 0
 * @client: UDP sockets may send to port 0
 * @aims: @from, @client or @reached is set, so destinations matter
 * @keep: keep the right to bind port 0 when the program changes to another user
 * @was_root: this program was started by root
 */
struct settings {
	ports mapped;
	ports reached;
	int reached_name;
	bool first;
	bool from;
	bool client;
	bool aims;
	bool keep;
	bool was_root;
};

extern struct settings settings;

void settings_read(void);
void exec_settings_read(void);
void peer_settings_read(void);
void rights_settings_read(void);

bool has(const ports set, int port);
void read_ports(const char *text, ports set);
unsigned long long read_number(const char **text);
int hold_cancel(void);
void allow_cancel(int before);
void report(const char *what, const char *reason);
void report_option(const char *what, int err);

/* The kind of a socket; KIND_UNKNOWN if a sandbox forbids getsockopt(). */
enum kind { KIND_NONE, KIND_TCP, KIND_UDP, KIND_OTHER, KIND_UNKNOWN };

enum kind kind_of(int fd);
int ask(int fd, int level, int name);
int set(int fd, int level, int name, int value);
uint64_t cookie_of(int fd);
int mark(int fd, int value);
int bind_literal(int fd, const struct sockaddr *addr, socklen_t len, const char *what, int asked);

bool is_readable(const void *buf, size_t size);
int port_of(const struct sockaddr *addr, socklen_t len);
void set_port(struct sockaddr_storage *copy, const struct sockaddr *addr, socklen_t len, int port);

void note_put(uint64_t key, uint16_t value);
int note_get(uint64_t key);

/* Sockets on port 0 that this program has bound, as text; see settings.h. */
size_t held_size(void);
size_t held_write(char *buf, size_t size);

#endif /* PORT0_LIBPORT0_H */
