/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Runs calls of several threads in a given order, so that a race happens in every run.
 *
 * There are two ways to stop a call half way. One is the module port0_hold,
 * which holds a thread where it would take or release the socket lock. The
 * other is a page of memory that blocks its readers (userfaultfd): a
 * setsockopt() that copies from it keeps the socket lock meanwhile, and a send
 * blocks while it copies.
 */
#ifndef PORT0_ORDER_H
#define PORT0_ORDER_H

#include <linux/filter.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>

#include "stress.h"

/* after what a call tests without the socket lock, before it takes the lock */
#define BEFORE_LOCK	"lock"
/* the same when it takes the lock for the second time */
#define BEFORE_RELOCK	"relock"
/* before the socket lock is released */
#define BEFORE_UNLOCK	"unlock"
/* after the socket lock was released */
#define AFTER_UNLOCK	"unlocked"
/* after a signal has ended the wait for a turn, before the module handles that */
#define AFTER_WAIT	"waited"

#define PEER_PORT	9
#define DRAIN		"/sys/module/port0/parameters/drain"

/*
 * The module is loaded by the first test that needs it and unloaded when the
 * program ends: each time patches kernel text. False if it is not built, or only for
 * another kernel; if it does not load for another reason, hold_open() fails.
 */
static inline bool hold_load(void)
{
	int err;

	if (!access("/dev/port0_hold", F_OK))
		return true;
	err = test_module_load("port0_hold");
	return err != -ENOENT && err != -ENOEXEC;
}

static __attribute__((destructor)) void hold_unload(void)
{
	if (!access("/dev/port0_hold", F_OK))
		test_module_unload("port0_hold");
}

struct slow_page {
	int uffd;
	char *page;
	size_t size;
};

static inline bool have_slow_pages(void)
{
	return !access("/proc/sys/vm/unprivileged_userfaultfd", F_OK);
}

#define NO_SLOW_PAGES	"this kernel has no userfaultfd"
#define NO_HOLD		"modules/port0_hold.ko is not built for this kernel"

static inline void slow_page_make(struct __test_metadata *_metadata,
				  struct slow_page *slow)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	slow->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, slow->uffd);
	slow->size = sysconf(_SC_PAGESIZE);
	slow->page = mmap(NULL, slow->size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)slow->page;
	reg.range.len = slow->size;
	ASSERT_EQ(0, rc(ioctl(slow->uffd, UFFDIO_API, &api)));
	ASSERT_EQ(0, rc(ioctl(slow->uffd, UFFDIO_REGISTER, &reg)));
}

/* Wait until a thread blocks on the page. */
static inline void slow_page_is_read(struct __test_metadata *_metadata,
				     const struct slow_page *slow)
{
	struct pollfd event = { .fd = slow->uffd, .events = POLLIN };

	ASSERT_EQ(1, rc(poll(&event, 1, IO_TIMEOUT_SEC * 1000)));
	ASSERT_EQ(POLLIN, event.revents);
}

/* Fill the page with @text, or zeros, so that its readers continue. */
static inline void slow_page_put(struct __test_metadata *_metadata,
				 const struct slow_page *slow, const char *text)
{
	char *page = calloc(1, slow->size);
	struct uffdio_copy copy = {
		.dst = (uintptr_t)slow->page, .src = (uintptr_t)page,
		.len = slow->size,
	};

	memcpy(page, text, strlen(text));
	ASSERT_EQ(0, rc(ioctl(slow->uffd, UFFDIO_COPY, &copy)));
	free(page);
}

static inline void slow_page_fill(struct __test_metadata *_metadata,
				  const struct slow_page *slow)
{
	slow_page_put(_metadata, slow, "");
}

/* A call in a thread of its own. */
struct call {
	int (*make)(struct call *call);
	int fd;
	const char *host;
	int port;
	int value;
	const char *text;
	void *page;
	int flags;

	int hold;
	const char *where;
	int next_hold;
	const char *next;	/* where it is to be held after that, or NULL */
	pthread_t thread;
	atomic_int tid;
	atomic_bool ended;
	int result;
};

static inline int hold_arm(int hold, const char *where)
{
	return where ? rc(write(hold, where, strlen(where))) : 0;
}

static inline void *call_run(void *data)
{
	struct call *call = data;

	atomic_store(&call->tid, syscall(SYS_gettid));
	if (hold_arm(call->hold, call->where) < 0 ||
	    hold_arm(call->next_hold, call->next) < 0)
		call->result = -errno;
	else
		call->result = call->make(call);
	atomic_store(&call->ended, true);
	return NULL;
}

static inline void call_start(struct __test_metadata *_metadata,
			      struct call *call)
{
	ASSERT_EQ(0, pthread_create(&call->thread, NULL, call_run, call));
}

static inline int hold_open(struct __test_metadata *_metadata)
{
	int hold = rc(open("/dev/port0_hold", O_RDWR | O_CLOEXEC));

	ASSERT_LE(0, hold) {
		TH_LOG("modules/port0_hold.ko does not load here: see dmesg");
	}
	return hold;
}

/* Wait until a thread is held there. */
static inline void hold_wait(struct __test_metadata *_metadata, int hold,
			     const char *where)
{
	char byte;

	ASSERT_EQ(1, rc(read(hold, &byte, 1))) {
		TH_LOG("the call does not reach the point \"%s\"", where);
	}
}

/* Start a call that is to be held at @where once it gets there. */
static inline void call_start_held(struct __test_metadata *_metadata,
				   struct call *call, const char *where)
{
	call->where = where;
	call->hold = hold_open(_metadata);
	if (call->next)
		call->next_hold = hold_open(_metadata);
	call_start(_metadata, call);
}

/* Start a call and hold it at @where. */
static inline void call_hold(struct __test_metadata *_metadata,
			     struct call *call, const char *where)
{
	call_start_held(_metadata, call, where);
	hold_wait(_metadata, call->hold, where);
}

/* Wait until a call ends and return its result. */
static inline int call_end(struct __test_metadata *_metadata, struct call *call)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 3 * IO_TIMEOUT_SEC;
	ASSERT_EQ(0, pthread_timedjoin_np(call->thread, NULL, &deadline)) {
		TH_LOG("a call does not end");
	}
	return call->result;
}

/* Release a held call. */
static inline int call_release(struct __test_metadata *_metadata,
			       struct call *call)
{
	close(call->hold);
	return call_end(_metadata, call);
}

/* Release a held call, and wait until it is held at the next place. */
static inline void call_release_to_next(struct __test_metadata *_metadata,
					struct call *call)
{
	close(call->hold);
	call->hold = call->next_hold;
	hold_wait(_metadata, call->hold, call->next);
}

/* The state of a thread or process as ps(1) has it, or 0. */
static inline char state_of(int tid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	fclose(file);
	return state;
}

/*
 * Wait until a call has ended that does not wait for another; false if it has not. It may
 * be in state D for long, while the kernel is patched.
 */
static inline bool call_ends(struct call *call)
{
	double deadline = now() + IO_TIMEOUT_SEC;

	while (!atomic_load(&call->ended)) {
		if (now() > deadline)
			return false;
		nap_ms(10);
	}
	return true;
}

/*
 * A thread that waits for a lock or a turn is in state D. So is, for a moment, one that
 * waits for memory or for the kernel to be patched; so its state is read several times.
 */
#define LOOKS	25

/*
 * Wait until a call has ended or waits for another, and tell which.
 */
static inline bool call_has_ended(struct __test_metadata *_metadata,
				  struct call *call)
{
	double deadline = now() + IO_TIMEOUT_SEC;
	int still = 0;

	while (!atomic_load(&call->ended)) {
		still = state_of(atomic_load(&call->tid)) == 'D' ? still + 1 : 0;
		if (still == LOOKS)
			return false;
		nap_ms(10);
		ASSERT_GT(deadline, now());
	}
	return true;
}

/* The same for a process that makes the call and then ends. */
static inline bool process_has_ended(struct __test_metadata *_metadata, pid_t pid)
{
	double deadline = now() + IO_TIMEOUT_SEC;
	int still = 0;
	char state;

	while ((state = state_of(pid)) != 'Z') {
		still = state == 'D' ? still + 1 : 0;
		if (still == LOOKS)
			return false;
		nap_ms(10);
		ASSERT_GT(deadline, now());
	}
	return true;
}

static inline void expect_blocked(struct __test_metadata *_metadata,
				  struct call *call)
{
	ASSERT_FALSE(call_has_ended(_metadata, call)) {
		TH_LOG("a call that should wait ends with %d", call->result);
	}
}

/* The calls */

static inline int do_bind(struct call *call)
{
	return bind_to(call->fd, call->host, call->port);
}

/* Mark and bind, as a program does; other ports than 0 need no mark. */
static inline int do_win(struct call *call)
{
	int err = call->port ? 0 : set_mark(call->fd, 1);

	return err ?: do_bind(call);
}

static inline int do_mark(struct call *call)
{
	return set_mark(call->fd, call->value);
}

static inline int do_listen(struct call *call)
{
	return rc(listen(call->fd, 1));
}

static inline int do_connect(struct call *call)
{
	return connect_to(call->fd, call->host, call->port);
}

static inline int do_send(struct call *call)
{
	struct addr to = addr_of(call->host, call->port);

	return rc(sendto(call->fd, call->text, strlen(call->text), call->flags,
			 &to.sa, to.len));
}

/* A send that blocks while it copies, until the page is there. */
static inline int do_send_page(struct call *call)
{
	struct addr to = addr_of(call->host, call->port);

	return rc(sendto(call->fd, call->page, 1, call->flags, &to.sa, to.len));
}

static inline int do_send_connected(struct call *call)
{
	return rc(send(call->fd, call->text, strlen(call->text), 0));
}

/*
 * A call that keeps the socket lock until the page is there. It fails then,
 * since a filter of zeros is invalid.
 */
static inline int do_keep_lock(struct call *call)
{
	struct sock_fprog filter = { .len = 1, .filter = call->page };

	return rc(setsockopt(call->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter,
			     sizeof(filter)));
}

static inline int do_v6only(struct call *call)
{
	return set_int(call->fd, SOL_IPV6, IPV6_V6ONLY, call->value);
}

/* The value is on a page; it is read before the lock is taken. */
static inline int do_v6only_from_page(struct call *call)
{
	return rc(setsockopt(call->fd, SOL_IPV6, IPV6_V6ONLY, call->page, sizeof(int)));
}

/* The name of the device is on a page; it is read before the lock is taken. */
static inline int do_device(struct call *call)
{
	return rc(setsockopt(call->fd, SOL_SOCKET, SO_BINDTODEVICE, call->page,
			     IFNAMSIZ));
}

/* What bind() to @dest returns beside @host, on an ordinary port; see struct place. */
static inline int bind_beside(struct __test_metadata *_metadata, const char *host,
			      const char *dest, int type)
{
	int first = new_socket(_metadata, host, type);
	int second = new_socket(_metadata, dest, type);
	int err;

	ASSERT_EQ(0, bind_to(first, host, CONTROL_PORT));
	err = bind_to(second, dest, CONTROL_PORT);
	close(first);
	close(second);
	return err;
}

#endif /* PORT0_ORDER_H */
