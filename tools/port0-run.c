// SPDX-License-Identifier: GPL-2.0
/*
 * port0-run - run a program that was not written for it on port 0
 *
 * Two ways: a preloaded library that turns the program's own bind() into a
 * literal one, or sockets that are opened here and handed over.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <link.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "port0.h"
#include "settings.h"

#ifndef LIBDIR
#define LIBDIR "/usr/lib/port0"
#endif
#define LIBRARY "libport0.so"

/* As env(1) and others that run a command have it. */
enum { FAILED = 125, CANNOT_RUN = 126, NOT_FOUND = 127 };

/* Where the socket-activation protocol has its first socket. */
#define LISTEN_FDS_START 3
#define MAX_LISTEN 64

static const char usage[] =
"usage: port0-run [--map PORT]... [--client] [--to PORT]... [--] COMMAND [ARG...]\n"
"       port0-run --listen [tcp:|udp:]ADDR... --fd [--] COMMAND [ARG...]\n"
"\n"
"Runs COMMAND with its sockets on literal port 0. The kernel module port0 must\n"
"be loaded. See port0-run(1).\n"
"\n"
"  --map PORT     where COMMAND binds PORT, it gets port 0; may be repeated\n"
"                 (default: 0)\n"
"  --client       COMMAND's UDP sockets may send to port 0\n"
"  --to PORT      where COMMAND connects to PORT, it reaches port 0; for clients\n"
"                 that refuse 0; may be repeated\n"
"  --listen ADDR  open a TCP (udp:ADDR: UDP) socket on port 0 of ADDR, which is\n"
"                 a numeric address; may be repeated\n"
"  --fd           hand these sockets to COMMAND as systemd does, from descriptor\n"
"                 3 on (LISTEN_FDS, LISTEN_PID)\n"
"  --help, --version\n"
"\n"
"The exit status is COMMAND's; 125 if port0-run fails, 126 if COMMAND cannot be\n"
"run this way, 127 if there is no COMMAND.\n";

/* @text as a shell would read it back, good until the fourth call after. */
static const char *quoted(const char *text)
{
	static const char harmless[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=/.,:@%";
	static char ring[4][PATH_MAX * 4 + 3];
	static unsigned int turn;
	char *buf = ring[turn++ % 4], *to = buf;

	if (*text && !text[strspn(text, harmless)])
		return text;
	*to++ = '\'';
	for (int n = 0; *text && n < PATH_MAX; n++, text++) {
		if (*text == '\'')
			to = stpcpy(to, "'\\''");
		else
			*to++ = *text;
	}
	strcpy(to, "'");
	return buf;
}

/* The mark says all at once whether the module is there. */
static void mark(int fd)
{
	int one = 1;

	if (!setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one, sizeof(one)))
		return;
	if (errno == ENOPROTOOPT)
		errx(FAILED, "the kernel module port0 is not loaded: run modprobe port0 as root");
	err(FAILED, "cannot mark a socket for port 0");
}

static void need_module(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err(FAILED, "cannot open a socket");
	mark(fd);
	close(fd);
}

/*
 * The file that execvp() would run. What is wrong with it, if anything, it says
 * better than we can.
 */
static bool find_command(const char *name, char path[PATH_MAX])
{
	const char *dirs = getenv("PATH") ?: "/bin:/usr/bin";

	if (strchr(name, '/'))
		return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && !access(path, X_OK);
	for (;;) {
		int len = (int)strcspn(dirs, ":");
		struct stat st;

		if (snprintf(path, PATH_MAX, "%.*s/%s", len ?: 1, len ? dirs : ".", name) < PATH_MAX &&
		    !access(path, X_OK) && !stat(path, &st) && S_ISREG(st.st_mode))
			return true;
		if (!dirs[len])
			return false;
		dirs += len + 1;
	}
}

#define INSTEAD "; let port0-run open its sockets, if it takes them as systemd hands them over:\n" \
		"  port0-run --listen ADDR --fd -- COMMAND\n"				     \
		"or have it set the socket option itself, see port0(7)"

/* Programs that the dynamic linker cuts off from preloaded libraries. */
static void refuse_privileged(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return;
	if ((st.st_mode & S_ISUID && st.st_uid != getuid()) ||
	    ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid()))
		errx(CANNOT_RUN, "%s changes its user or group when it starts (setuid), so it ignores preloaded libraries: run it as the user it changes to"
		     INSTEAD, quoted(path));
	if (getuid() && getxattr(path, "security.capability", NULL, 0) > 0)
		errx(CANNOT_RUN, "%s has file capabilities, so it ignores preloaded libraries: run it as root"
		     INSTEAD, quoted(path));
}

/* Whether a Go compiler has left its note; Go programs do not call bind(). */
static bool has_go_note(const char *notes, size_t size)
{
	while (size >= sizeof(ElfW(Nhdr)) + 4) {
		const ElfW(Nhdr) *note = (const void *)notes;
		size_t length = sizeof(*note) + ((note->n_namesz + 3UL) & ~3UL) +
				((note->n_descsz + 3UL) & ~3UL);

		if (note->n_namesz == 4 && !memcmp(note + 1, "Go\0", 4))
			return true;
		if (note->n_namesz > size || note->n_descsz > size || length > size)
			break;
		notes += length;
		size -= length;
	}
	return false;
}

/* A whole file in memory, or NULL: of an empty one, too. */
static const char *map_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	void *image = MAP_FAILED;
	struct stat st;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
		*size = (size_t)st.st_size;
		image = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
	}
	close(fd);
	return image == MAP_FAILED ? NULL : image;
}

/* What of an ELF file matters here. */
struct program {
	int class, machine;
	const char *linker;	/* the file name of its dynamic linker, if any */
	bool go;
};

static bool read_elf(const char *image, size_t size, struct program *p)
{
	const ElfW(Ehdr) *head = (const void *)image;

	if (size < sizeof(*head) || memcmp(image, ELFMAG, SELFMAG))
		return false;
	*p = (struct program) { .class = head->e_ident[EI_CLASS], .machine = head->e_machine };
	for (int n = 0; n < head->e_phnum; n++) {
		size_t place = head->e_phoff + (size_t)n * head->e_phentsize;
		const ElfW(Phdr) *part = (const void *)(image + place);
		const char *data;

		if (place > size || size - place < sizeof(*part))
			break;
		if (!part->p_filesz || part->p_filesz > size ||
		    part->p_offset > size - part->p_filesz)
			continue;
		data = image + part->p_offset;
		if (part->p_type == PT_INTERP && !data[part->p_filesz - 1])
			p->linker = strrchr(data, '/') ?: data;
		p->go |= part->p_type == PT_NOTE && has_go_note(data, part->p_filesz);
	}
	return true;
}

static void refuse_elf(const char *path, const struct program *p)
{
	struct program own;
	size_t size;
	const char *image = map_file("/proc/self/exe", &size);

	if (!image || !read_elf(image, size, &own))
		err(FAILED, "cannot read /proc/self/exe");
	if (p->class != own.class || p->machine != own.machine)
		errx(CANNOT_RUN, "%s is for another machine than " LIBRARY ", which it cannot load"
		     INSTEAD, quoted(path));
	if (!p->linker)
		errx(CANNOT_RUN, "%s is statically linked, so it cannot load " LIBRARY INSTEAD,
		     quoted(path));
	if (p->go)
		errx(CANNOT_RUN, "%s is a Go program, which makes its system calls without the C library"
		     INSTEAD, quoted(path));
	if (own.linker && strcmp(p->linker, own.linker))
		errx(CANNOT_RUN, "%s has another C library than " LIBRARY ", which it cannot load"
		     INSTEAD, quoted(path));
	munmap((void *)image, size);
}

/* Follows scripts to what interprets them, as deep as the kernel does. */
static void refuse_unsuitable(const char *name, int depth)
{
	char path[PATH_MAX], line[PATH_MAX] = "";
	struct program program;
	const char *image;
	size_t size;

	if (!find_command(name, path))
		return;
	refuse_privileged(path);
	image = map_file(path, &size);
	if (!image)
		return;
	if (read_elf(image, size, &program))
		refuse_elf(path, &program);
	else if (size > 2 && !memcmp(image, "#!", 2))
		snprintf(line, sizeof(line), "%.*s", (int)strnlen(image + 2, size - 2), image + 2);
	munmap((void *)image, size);

	name = line + strspn(line, " \t");
	line[(size_t)(name - line) + strcspn(name, " \t\n")] = '\0';
	if (*name && depth)
		refuse_unsuitable(name, depth - 1);
}

static void set(const char *name, const char *format, ...)
{
	char *value;
	va_list args;

	va_start(args, format);
	if (vasprintf(&value, format, args) < 0 || setenv(name, value, 1))
		err(FAILED, "cannot set %s", name);
	va_end(args);
	free(value);
}

/* Beside us in the source, in its place once installed. */
static void preload(void)
{
	const char *others = getenv("LD_PRELOAD");
	char path[PATH_MAX] = "";
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - sizeof(LIBRARY));

	if (len > 0)
		strcpy(memrchr(path, '/', (size_t)len) + 1, LIBRARY);
	if (access(path, R_OK))
		strcpy(path, LIBDIR "/" LIBRARY);
	if (access(path, R_OK))
		err(FAILED, "%s", quoted(path));
	if (path[strcspn(path, " :")])
		errx(FAILED, "%s: the dynamic linker takes no path with a space or colon in it",
		     quoted(path));
	set("LD_PRELOAD", "%s%s%s", path, others ? " " : "", others ?: "");
}

static void run_mapped(char **command, const char *map, const char *to, bool client)
{
	struct stat st;

	refuse_unsuitable(command[0], 4);
	/* connect() to port 0 is nothing special to the kernel. */
	if (*map || client)
		need_module();
	preload();
	set(PORT0_ENV_MAP, "%s", map);
	set(PORT0_ENV_TO, "%s", to);
	if (client)
		set(PORT0_ENV_CLIENT, "1");
	else
		unsetenv(PORT0_ENV_CLIENT);
	if (fstat(STDERR_FILENO, &st))
		unsetenv(PORT0_ENV_STDERR);
	else
		set(PORT0_ENV_STDERR, "%llu:%llu", (unsigned long long)st.st_dev,
		    (unsigned long long)st.st_ino);
}

static int listen_on(const char *where)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_PASSIVE,
				  .ai_socktype = SOCK_STREAM }, *to;
	const char *addr = where;
	char host[NI_MAXHOST];
	int fd, one = 1, rc;
	size_t len;

	if (!strncmp(where, "udp:", 4))
		hints.ai_socktype = SOCK_DGRAM;
	if (!strncmp(where, "udp:", 4) || !strncmp(where, "tcp:", 4))
		addr += 4;
	len = strlen(addr);
	if (len > 1 && addr[0] == '[' && addr[len - 1] == ']') {
		addr++;
		len -= 2;
	}
	snprintf(host, sizeof(host), "%.*s", (int)len, addr);
	rc = *host ? getaddrinfo(host, "0", &hints, &to) : EAI_NONAME;
	if (rc)
		errx(FAILED, "--listen %s: not a numeric address, with tcp: or udp: before it or without: %s",
		     quoted(where), gai_strerror(rc));

	fd = socket(to->ai_family, to->ai_socktype | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err(FAILED, "--listen %s: cannot open a socket", quoted(where));
	mark(fd);
	if (hints.ai_socktype == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, to->ai_addr, to->ai_addrlen) ||
	    (hints.ai_socktype == SOCK_STREAM && listen(fd, SOMAXCONN))) {
		if (errno == EACCES)
			errx(FAILED, "--listen %s: no right to ports below 1024: run it as root, give it CAP_NET_BIND_SERVICE, or set net.ipv4.ip_unprivileged_port_start=0",
			     quoted(where));
		if (errno == EADDRINUSE)
			errx(FAILED, "--listen %s: another socket has port 0 on this address (:: takes the IPv4 addresses, too)",
			     quoted(where));
		if (errno == EADDRNOTAVAIL)
			errx(FAILED, "--listen %s: this host does not have the address: see ip address",
			     quoted(where));
		err(FAILED, "--listen %s", quoted(where));
	}
	freeaddrinfo(to);
	return fd;
}

static void run_listening(char **where, int count)
{
	char names[MAX_LISTEN * sizeof(":port0")] = "";
	int fds[MAX_LISTEN];

	/* First all out of the way of each other, then to their places. */
	for (int n = 0; n < count; n++) {
		int fd = listen_on(where[n]);

		fds[n] = fcntl(fd, F_DUPFD_CLOEXEC, LISTEN_FDS_START + count);
		if (fds[n] < 0)
			err(FAILED, "--listen %s", quoted(where[n]));
		close(fd);
	}
	for (int n = 0; n < count; n++) {
		if (dup2(fds[n], LISTEN_FDS_START + n) < 0)
			err(FAILED, "--listen %s", quoted(where[n]));
		strcat(names, n ? ":port0" : "port0");
	}
	set("LISTEN_FDS", "%d", count);
	set("LISTEN_PID", "%d", (int)getpid());
	set("LISTEN_FDNAMES", "%s", names);
}

static void add_port(char **ports, const char *option, const char *text)
{
	char *end, *longer;
	unsigned long port = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || port > 65535)
		errx(FAILED, "%s %s: a port is a number from 0 to 65535", option, quoted(text));
	if (asprintf(&longer, "%s%s%lu", *ports, **ports ? "," : "", port) < 0)
		err(FAILED, "%s", option);
	free(*ports);
	*ports = longer;
}

int main(int argc, char **argv)
{
	enum { MAP = 1, TO, CLIENT, LISTEN, FD, HELP, VERSION_ };
	static const struct option options[] = {
		{ "map", required_argument, NULL, MAP },
		{ "to", required_argument, NULL, TO },
		{ "client", no_argument, NULL, CLIENT },
		{ "listen", required_argument, NULL, LISTEN },
		{ "fd", no_argument, NULL, FD },
		{ "help", no_argument, NULL, HELP },
		{ "version", no_argument, NULL, VERSION_ },
		{ }
	};
	bool client = false, fd = false;
	char *listens[MAX_LISTEN];
	char *map = strdup(""), *to = strdup("");
	int count = 0, option;

	while ((option = getopt_long(argc, argv, "+", options, NULL)) > 0) {
		switch (option) {
		case MAP:
			add_port(&map, "--map", optarg);
			break;
		case TO:
			add_port(&to, "--to", optarg);
			break;
		case CLIENT:
			client = true;
			break;
		case LISTEN:
			if (count == MAX_LISTEN)
				errx(FAILED, "--listen: more than %d", MAX_LISTEN);
			listens[count++] = optarg;
			break;
		case FD:
			fd = true;
			break;
		case HELP:
			fputs(usage, stdout);
			return 0;
		case VERSION_:
			puts("port0-run " VERSION);
			return 0;
		default:
			errx(FAILED, "see port0-run --help");
		}
	}
	argv += optind;
	if (!*argv)
		errx(FAILED, "no COMMAND, see port0-run --help");
	if (fd != !!count)
		errx(FAILED, "--listen ADDR and --fd go together: the one opens sockets, the other hands them over");
	if (fd && (*map || *to || client))
		errx(FAILED, "--listen opens the sockets, the other options change those of COMMAND: not both");

	if (fd)
		run_listening(listens, count);
	else
		run_mapped(argv, *map || *to || client ? map : "0", to, client);
	execvp(argv[0], argv);
	err(errno == ENOENT ? NOT_FOUND : CANNOT_RUN, "%s", quoted(argv[0]));
}
