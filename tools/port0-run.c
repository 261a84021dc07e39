// SPDX-License-Identifier: GPL-2.0
/*
 * port0-run - run an unmodified program on port 0
 *
 * There are two ways: a preloaded library that makes the program's own bind()
 * literal, or sockets that are opened here and passed to the program.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port0.h"
#include "program.h"
#include "refusal.h"
#include "settings.h"

#ifndef LIBDIR
#define LIBDIR "/usr/lib/port0"
#endif

/* The same exit statuses as env(1) and similar commands */
enum { FAILED = 125, CANNOT_RUN = 126, NOT_FOUND = 127 };

/* The first descriptor of the socket-activation protocol */
#define LISTEN_FDS_START 3
#define MAX_LISTEN 64

static const char usage[] =
"usage: port0-run [--reply] [--map PORT[-PORT]]... [--from] [--to PORT[-PORT]]...\n"
"                 [--keep-right] [--] COMMAND [ARG...]\n"
"       port0-run --listen [tcp:|udp:]ADDR... --fd [--] COMMAND [ARG...]\n"
"\n"
"Runs COMMAND with its sockets on literal port 0. The kernel module port0 must\n"
"be loaded. See port0-run(1).\n"
"\n"
"  --reply        COMMAND's UDP sockets may send to port 0, as a server needs to\n"
"                 answer peers whose source port is 0; --client is the same\n"
"  --map PORT     if COMMAND binds PORT, it gets port 0; a range is 8000-8100\n"
"                 (without --map, --from, --to and --reply: its first bind to 0 on\n"
"                 an address gets port 0)\n"
"  --from         COMMAND's TCP and UDP sockets without a port connect and send\n"
"                 from port 0\n"
"  --to PORT      if COMMAND connects or sends to PORT, it reaches port 0; for\n"
"                 clients that refuse 0\n"
"  --keep-right   COMMAND keeps the right to bind port 0, and no other, when it\n"
"                 gives up root\n"
"  --listen ADDR  open a TCP (udp:ADDR: UDP) socket on port 0 of ADDR, which is\n"
"                 a numeric address\n"
"  --fd           pass these sockets to COMMAND as systemd does, from descriptor 3\n"
"                 up (LISTEN_FDS, LISTEN_PID)\n"
"  --help, --version\n"
"\n"
"--map, --to and --listen may be repeated. A port0-run that runs within another one\n"
"adds its options to those of the outer one.\n"
"The exit status is COMMAND's; 125 if port0-run fails, 126 if COMMAND cannot be\n"
"run this way, 127 if COMMAND is not found.\n";

/* @text quoted for a shell, in one of four static buffers */
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

/* Setting the mark shows whether the module is loaded. */
static void mark(int fd)
{
	char reason[REFUSAL_SIZE] = "";
	int one = 1;

	if (!setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one, sizeof(one)))
		return;
	if (errno == ENOPROTOOPT)
		errx(FAILED, "the kernel module port0 is not loaded: as root, run modprobe port0 or insmod port0.ko");
	refusal_of_option(reason, sizeof(reason), errno);
	err(FAILED, "cannot mark a socket for port 0: %s", reason);
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
 * The file that execvp() would run. If it cannot be run, execvp() reports that
 * better.
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

#define INSTEAD "; if it can take sockets from systemd, let port0-run open them:\n" \
		"  port0-run --listen ADDR --fd -- COMMAND\n"				     \
		"or have it set the socket option itself, see port0(7)"

/* Follows scripts to their interpreters, as deep as the kernel does. */
static void refuse_unsuitable(const char *name, int depth)
{
	struct program program;
	char path[PATH_MAX];
	int fd;

	if (!find_command(name, path))
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return;
	program_inspect(fd, &program);
	close(fd);
	if (program.obstacle)
		errx(CANNOT_RUN, "%s %s%s%s" INSTEAD, quoted(path), program.obstacle,
		     program.advice ? ": " : "", program.advice ?: "");
	if (*program.interpreter && depth)
		refuse_unsuitable(program.interpreter, depth - 1);
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

/*
 * Tell whether the list in LD_PRELOAD has the library, in any directory. @loads: only
 * if the file can be read, which it cannot in some chroots.
 */
static bool has_library(const char *list, bool loads)
{
	static const char own[] = "/" PORT0_LIBRARY;
	char path[PATH_MAX];

	while (list && *list) {
		size_t len = strcspn(list, " :");

		if (len >= strlen(own) && len < sizeof(path) &&
		    !strncmp(list + len - strlen(own), own, strlen(own))) {
			snprintf(path, sizeof(path), "%.*s", (int)len, list);
			if (!loads || !access(path, R_OK))
				return true;
		}
		list += len + !!list[len];
	}
	return false;
}

/*
 * The path of the library: in the directory of this program in the source tree,
 * or where it was installed.
 */
static const char *find_library(void)
{
	static char path[PATH_MAX * 2];
	char own[PATH_MAX] = "";
	ssize_t len = readlink("/proc/self/exe", own, sizeof(own) - 1);

	/*
	 * Without /proc, as in a chroot, the kernel still passes the path of
	 * this program.
	 */
	if (len <= 0 && !realpath((const char *)getauxval(AT_EXECFN), own))
		own[0] = '\0';
	if (*own)
		snprintf(path, sizeof(path), "%.*s" PORT0_LIBRARY,
			 (int)(strrchr(own, '/') + 1 - own), own);
	if (access(path, R_OK))
		strcpy(path, LIBDIR "/" PORT0_LIBRARY);
	if (access(path, R_OK))
		err(FAILED, "cannot read the library %s: install it again, with the PREFIX= that port0-run was made with",
		    quoted(path));
	if (path[strcspn(path, " :")])
		errx(FAILED, "%s: the dynamic linker takes no path with a space or colon in it",
		     quoted(path));
	return path;
}

/* Set a variable to a set of ports, in the format of settings.h. */
static void set_ports(const char *name, const bool ports[65536])
{
	char text[PORT0_SET_HEX + 16] = "";
	int len = 0;

	for (int first = 0, last; first < 65536 && len < PORT0_SET_HEX; first = last + 1) {
		last = first;
		if (!ports[first])
			continue;
		while (last < 65535 && ports[last + 1])
			last++;
		len += sprintf(text + len, last > first ? "%s%d-%d" : "%s%d", len ? "," : "",
			       first, last);
	}
	if (len >= PORT0_SET_HEX) {
		len = sprintf(text, "x");
		for (int n = 0; n < 65536; n += 4)
			text[len++] = "0123456789abcdef"[ports[n] | ports[n + 1] << 1 |
							 ports[n + 2] << 2 | ports[n + 3] << 3];
		text[len] = '\0';
	}
	set(name, "%s", text);
}

/* Sets the environment variables for the library. */
struct wishes {
	bool map[65536], to[65536];
	bool mapped, reached, client, from, keep;
};

static void run_mapped(char **command, const struct wishes *wish)
{
	const char *others = getenv("LD_PRELOAD"), *library = find_library();
	bool first = !wish->mapped && !wish->reached && !wish->client && !wish->from;
	struct stat st;

	refuse_unsuitable(command[0], 4);
	/* connect() to port 0 does not need the module. */
	if (first || wish->mapped || wish->client || wish->from)
		need_module();
	if (!has_library(others, true))
		set("LD_PRELOAD", "%s%s%s", library, others && *others ? ":" : "", others ?: "");
	set_ports(PORT0_ENV_MAP, wish->map);
	set_ports(PORT0_ENV_TO, wish->to);
	if (first)
		set(PORT0_ENV_FIRST, "1");
	if (wish->client)
		set(PORT0_ENV_CLIENT, "1");
	if (wish->from)
		set(PORT0_ENV_FROM, "1");
	if (wish->keep)
		set(PORT0_ENV_KEEP, "1");
	if (fstat(STDERR_FILENO, &st))
		unsetenv(PORT0_ENV_STDERR);
	else
		set(PORT0_ENV_STDERR, "%llu:%llu", (unsigned long long)st.st_dev,
		    (unsigned long long)st.st_ino);
}

static void refuse_listen(const char *where, int fd, int type, const struct addrinfo *to)
{
	const struct sockaddr_in6 *in6 = (const void *)to->ai_addr;
	struct attempt attempt = { .domain = to->ai_family, .type = type, .addr = to->ai_addr,
				   .len = to->ai_addrlen };
	char reason[REFUSAL_SIZE] = "";
	int error = errno;

	refusal_of_bind(reason, sizeof(reason), error, &attempt);
	if (error == EADDRINUSE)
		errx(FAILED, "--listen %s: another socket has port 0 on this address: see port0-ls (:: takes the IPv4 addresses, too)",
		     quoted(where));
	if (*reason)
		errx(FAILED, "--listen %s: %s", quoted(where), reason);
	if (error == EADDRNOTAVAIL)
		errx(FAILED, "--listen %s: this host does not have the address: see ip address",
		     quoted(where));
	if (error == EINVAL && to->ai_family == AF_INET6 && !in6->sin6_scope_id &&
	    (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) || IN6_IS_ADDR_MC_LINKLOCAL(&in6->sin6_addr)))
		errx(FAILED, "--listen %s: a link-local address needs an interface: name it, as in %s%%eth0 (see ip link)",
		     quoted(where), quoted(where));
	close(fd);
	errno = error;
	err(FAILED, "--listen %s", quoted(where));
}

/*
 * The socket must not silently have another port: the module may have been unloaded since
 * the socket was marked, or a seccomp filter has returned success without marking it.
 */
static void check_port(const char *where, int fd)
{
	char reason[REFUSAL_SIZE] = "";
	socklen_t len = sizeof(int);
	int bound = -1;

	errno = EPERM;	/* also if the filter does so here */
	if (!getsockopt(fd, SOL_IP, IP_BOUND_PORT_ZERO, &bound, &len) && bound == 1)
		return;
	refusal_of_option(reason, sizeof(reason), bound ? errno : ENOPROTOOPT);
	errx(FAILED, "--listen %s: %s", quoted(where), reason);
}

static int listen_on(const char *where)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_PASSIVE,
				  .ai_socktype = SOCK_STREAM }, *to;
	const char *addr = where;
	char host[NI_MAXHOST], *device;
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
	device = strchr(host, '%');
	if (device && !if_nametoindex(device + 1) &&
	    (!device[1] || strspn(device + 1, "0123456789") != strlen(device + 1)))
		errx(FAILED, "--listen %s: there is no interface %s: see ip link", quoted(where),
		     quoted(device + 1));
	rc = *host ? getaddrinfo(host, "0", &hints, &to) : EAI_NONAME;
	if (rc)
		errx(FAILED, "--listen %s: %s (wanted: a numeric address, as in 0.0.0.0, tcp:::1 or udp:192.0.2.1)",
		     quoted(where), gai_strerror(rc));

	fd = socket(to->ai_family, to->ai_socktype | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err(FAILED, "--listen %s: cannot open a socket", quoted(where));
	mark(fd);
	if (hints.ai_socktype == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, to->ai_addr, to->ai_addrlen) ||
	    (hints.ai_socktype == SOCK_STREAM && listen(fd, SOMAXCONN)))
		refuse_listen(where, fd, hints.ai_socktype, to);
	check_port(where, fd);
	freeaddrinfo(to);
	return fd;
}

static void run_listening(char **where, int count)
{
	char names[MAX_LISTEN * sizeof(":port0")] = "";
	int fds[MAX_LISTEN];

	/* First move all descriptors out of the way, then to their places. */
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
	/* May be inherited from a service of systemd: it then names another process. */
	unsetenv("LISTEN_PIDFDID");
}

/* One port, or a range of them. */
static void add_ports(bool ports[65536], const char *option, const char *text)
{
	static const char digits[] = "0123456789";
	size_t len = strspn(text, digits);
	unsigned long first = strtoul(text, NULL, 10), last = first;

	if (len && text[len] == '-' && strchr(digits, text[len + 1]) && text[len + 1]) {
		last = strtoul(text + len + 1, NULL, 10);
		len += 1 + strspn(text + len + 1, digits);
	}
	if (!len || text[len] || first > 65535 || last > 65535)
		errx(FAILED, "%s %s: a port is a number from 0 to 65535, a range is 8000-8100",
		     option, quoted(text));
	if (last < first)
		errx(FAILED, "%s %s: the range ends before it begins", option, quoted(text));
	memset(ports + first, true, last - first + 1);
}

/* The settings of an outer port0-run. Only port0-run writes these variables. */
static void inherit(bool ports[65536], const char *text)
{
	if (text && *text == 'x') {
		for (int n = 0; n < 65536 && text[n / 4 + 1]; n++) {
			char digit[] = { text[n / 4 + 1], '\0' };

			ports[n] |= strtoul(digit, NULL, 16) >> n % 4 & 1;
		}
		return;
	}
	while (text && *text) {
		char *end;
		unsigned long first = strtoul(text, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (end == text || last > 65535 || first > last)
			errx(FAILED, "LD_PRELOAD has a " PORT0_LIBRARY ", but the settings with it are wrong: unset LD_PRELOAD, "
			     PORT0_ENV_MAP " and " PORT0_ENV_TO);
		memset(ports + first, true, last - first + 1);
		text = end + (*end == ',');
	}
}

/*
 * Settings without the library in LD_PRELOAD are left over from another port0-run:
 * remove them.
 */
static void remove_settings(void)
{
	static const char *const names[] = {
		PORT0_ENV_FIRST, PORT0_ENV_FROM, PORT0_ENV_CLIENT, PORT0_ENV_KEEP, PORT0_ENV_SOCKETS,
	};

	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		unsetenv(names[n]);
}

/*
 * If a standard descriptor is closed, no socket may get its number, since a message would
 * be written to it. /dev/null is opened in the wrong direction, so that using it fails as
 * on a closed one. COMMAND finds the descriptor closed.
 */
static void reserve_standard(void)
{
	for (int fd = 0; fd < 3; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", (fd ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
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
	enum { MAP = 1, TO, REPLY, FROM, KEEP, LISTEN, FD, HELP, VERSION_ };
	static const struct option options[] = {
		{ "reply", no_argument, NULL, REPLY },
		{ "client", no_argument, NULL, REPLY },
		{ "map", required_argument, NULL, MAP },
		{ "from", no_argument, NULL, FROM },
		{ "to", required_argument, NULL, TO },
		{ "keep-right", no_argument, NULL, KEEP },
		{ "listen", required_argument, NULL, LISTEN },
		{ "fd", no_argument, NULL, FD },
		{ "help", no_argument, NULL, HELP },
		{ "version", no_argument, NULL, VERSION_ },
		{ }
	};
	static struct wishes wish;
	char *listens[MAX_LISTEN];
	int count = 0, option;
	bool fd = false;

	reserve_standard();
	while ((option = getopt_long(argc, argv, "+", options, NULL)) > 0) {
		switch (option) {
		case MAP:
			add_ports(wish.map, "--map", optarg);
			wish.mapped = true;
			break;
		case TO:
			add_ports(wish.to, "--to", optarg);
			wish.reached = true;
			break;
		case REPLY:
			wish.client = true;
			break;
		case FROM:
			wish.from = true;
			break;
		case KEEP:
			wish.keep = true;
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
			return say(usage);
		case VERSION_:
			return say("port0-run " VERSION "\n");
		default:
			errx(FAILED, "see port0-run --help");
		}
	}
	argv += optind;
	if (!*argv)
		errx(FAILED, "no COMMAND, see port0-run --help");
	if (fd != !!count)
		errx(FAILED, "--listen ADDR and --fd go together: --listen opens the sockets, --fd passes them on");
	if (fd && (wish.mapped || wish.reached || wish.client || wish.from || wish.keep))
		errx(FAILED, "--listen opens the sockets, the other options change the sockets of COMMAND: use one or the other");

	if (fd) {
		run_listening(listens, count);
	} else {
		if (has_library(getenv("LD_PRELOAD"), false)) {
			inherit(wish.map, getenv(PORT0_ENV_MAP));
			inherit(wish.to, getenv(PORT0_ENV_TO));
		} else {
			remove_settings();
		}
		run_mapped(argv, &wish);
	}
	execvp(argv[0], argv);
	err(errno == ENOENT ? NOT_FOUND : CANNOT_RUN, "%s", quoted(argv[0]));
}
