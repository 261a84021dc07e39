// SPDX-License-Identifier: GPL-2.0
/*
 * Memory leaks in calls that succeed and in calls that fail.
 *
 * Each case is repeated. If no slab cache has grown by about as many objects, nothing
 * is leaked: no socket, no bucket, no memory of the module. Objects that are freed
 * later, or that a cache keeps in reserve, do not grow with each repetition.
 */
#include "stress.h"

#define ROUNDS		256
/* A leak is one object for each round; a cache's reserve may grow by fewer. */
#define GROWTH		(ROUNDS * 3 / 4)
#define TRIES		3
#define MAX_CACHES	512

struct cache {
	char name[64];
	long objects;
};

struct caches {
	struct cache of[MAX_CACHES];
	int count;
};

static bool caches_read(struct caches *caches)
{
	FILE *file = fopen("/proc/slabinfo", "re");
	char line[512];

	caches->count = 0;
	while (file && caches->count < MAX_CACHES &&
	       fgets(line, sizeof(line), file)) {
		struct cache *cache = &caches->of[caches->count];

		if (sscanf(line, "%63s %ld", cache->name, &cache->objects) == 2)
			caches->count++;
	}
	if (file)
		fclose(file);
	return caches->count;
}

/* The first cache that has grown by as much as a leak would make it, or NULL */
static const struct cache *caches_grown(const struct caches *before,
					const struct caches *after)
{
	int i, k;

	for (i = 0; i < after->count; i++)
		for (k = 0; k < before->count; k++)
			if (!strcmp(after->of[i].name, before->of[k].name) &&
			    after->of[i].objects - before->of[k].objects >= GROWTH)
				return &after->of[i];
	return NULL;
}

struct scene {
	const char *host;
	int type;
	int server;		/* on an ordinary port */
};

static int marked(const struct scene *scene)
{
	int fd = socket(family_of(scene->host), scene->type, 0);

	reset_on_close(fd);
	return set_mark(fd, 1) ?: fd;
}

static int bound(const struct scene *scene)
{
	int fd = marked(scene);

	return bind_to(fd, scene->host, 0) ?: fd;
}

/* Returns 0 if @err is @expected, else an errno. */
static int unless(int expected, int err)
{
	return err == expected ? 0 : err ?: -ENODATA;
}

static int case_mark(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = marked(scene), err;

	err = set_mark(fd, 0) ?: unless(-EINVAL, set_mark(fd, 2)) ?: set_mark(fd, 1);
	close(fd);
	return err;
}

static int case_bind(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = bound(scene), err;

	err = unless(-EINVAL, bind_to(fd, scene->host, 0)) ?:
	      unless(-EINVAL, bind_to(fd, scene->host, OTHER_PORT)) ?:
	      unless(-EBUSY, set_mark(fd, 0));
	close(fd);
	return err;
}

static int case_bind_other_port(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = marked(scene);
	int err = bind_to(fd, scene->host, OTHER_PORT);

	close(fd);
	return err;
}

static int case_bind_taken(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = bound(scene), second = marked(scene), err;

	err = unless(-EADDRINUSE, bind_to(second, scene->host, 0));
	close(fd);
	err = err ?: bind_to(second, scene->host, 0);
	close(second);
	return err;
}

static int case_bind_wrong(struct __test_metadata *_metadata, const struct scene *scene)
{
	struct addr short_ = addr_of(scene->host, 0), family = short_;
	int fd = marked(scene), err;

	short_.len = sizeof(short_.v4) - 1;
	family.sa.sa_family = AF_UNIX;
	err = unless(-EINVAL, rc(bind(fd, &short_.sa, short_.len))) ?:
	      unless(-EAFNOSUPPORT, rc(bind(fd, &family.sa, family.len))) ?:
	      unless(-EADDRNOTAVAIL, bind_to(fd, is_ip6(scene->host) ?
					     "2001:db8::1" : "192.0.2.1", 0));
	close(fd);
	return err;
}

static int case_bind_forbidden(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = marked(scene), err;

	keep_bind_service(_metadata, false);
	err = unless(-EACCES, bind_to(fd, scene->host, 0));
	keep_bind_service(_metadata, true);
	close(fd);
	return err;
}

static int case_group(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd[2], i, err = 0;

	for (i = 0; i < 2; i++) {
		fd[i] = marked(scene);
		err = err ?: set_int(fd[i], SOL_SOCKET, SO_REUSEPORT, 1) ?:
		      bind_to(fd[i], scene->host, 0);
		if (scene->type == SOCK_STREAM)
			err = err ?: rc(listen(fd[i], 1));
	}
	close(fd[0]);
	close(fd[1]);
	return err;
}

static int case_connect_from(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = bound(scene), child, err;

	err = connect_to(fd, scene->host, CONTROL_PORT);
	if (!err && scene->type == SOCK_STREAM) {
		child = accept(scene->server, NULL, NULL);
		err = rc(shutdown(child, SHUT_RDWR));
		reset_on_close(child);
		close(child);
	}
	err = err ?: disconnect(fd);
	close(fd);
	return err;
}

/* No socket is on OTHER_PORT. */
static int case_connect_refused(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = bound(scene), err;

	err = unless(scene->type == SOCK_STREAM ? -ECONNREFUSED : 0,
		     connect_to(fd, scene->host, OTHER_PORT));
	close(fd);
	return err;
}

static int case_listen(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = bound(scene), client, child, err;

	client = socket(family_of(scene->host), SOCK_STREAM, 0);
	reset_on_close(client);
	err = rc(listen(fd, 1)) ?: connect_to(client, scene->host, 0);
	child = accept(fd, NULL, NULL);
	err = err ?: unless(-EINVAL, bind_to(child, scene->host, 0));
	close(client);
	close(child);
	err = err ?: rc(shutdown(fd, SHUT_RDWR)) ?: rc(listen(fd, 1));
	close(fd);
	return err;
}

static int case_send(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = bound(scene), other = marked(scene), err;

	err = unless(1, send_to(fd, scene->host, 0, "x", 0)) ?:
	      unless(1, send_to(other, scene->host, 0, "y", 0)) ?:
	      unless(1, send_to(fd, scene->host, 0, "z", MSG_MORE));
	close(other);
	close(fd);
	return err;
}

static int case_send_wrong(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = bound(scene), err;

	err = is_ip6(scene->host) ? 0 :
	      unless(-EOPNOTSUPP, send_to(fd, scene->host, 0, "x", MSG_OOB));
	err = err ?: unless(-ENETUNREACH, send_to(fd, is_ip6(scene->host) ?
					   "2001:db8::1" : "192.0.2.1", 0, "x", 0));
	close(fd);
	return err;
}

static int case_v6only(struct __test_metadata *_metadata, const struct scene *scene)
{
	int fd = marked(scene), err;

	if (!is_ip6(scene->host)) {
		close(fd);
		return 0;
	}
	err = set_int(fd, SOL_IPV6, IPV6_V6ONLY, 1) ?:
	      bind_to(fd, scene->host, 0) ?:
	      unless(-EINVAL, set_int(fd, SOL_IPV6, IPV6_V6ONLY, 0));
	close(fd);
	return err;
}

static const struct {
	const char *name;
	bool tcp, udp;
	int (*make)(struct __test_metadata *_metadata, const struct scene *scene);
} cases[] = {
	{ "mark", true, true, case_mark },
	{ "bind", true, true, case_bind },
	{ "bind to another port", true, true, case_bind_other_port },
	{ "bind of a taken address", true, true, case_bind_taken },
	{ "bind of a bad address", true, true, case_bind_wrong },
	{ "bind without the capability", true, true, case_bind_forbidden },
	{ "group", true, true, case_group },
	{ "connect from port 0", true, true, case_connect_from },
	{ "connect, refused", true, true, case_connect_refused },
	{ "listen", true, false, case_listen },
	{ "send", false, true, case_send },
	{ "send that fails", false, true, case_send_wrong },
	{ "IPV6_V6ONLY", true, true, case_v6only },
};

FIXTURE(slabs) {
	pthread_t thread;
	int end[2];
};

FIXTURE_VARIANT(slabs) {
	const char *host;
	int type;
	bool threads;		/* so that calls may be late, and bound sockets are watched */
};

#define SLABS(name, ...) FIXTURE_VARIANT_ADD(slabs, name) { __VA_ARGS__ }
SLABS(ip4_tcp, "127.0.0.1", SOCK_STREAM, true);
SLABS(ip6_tcp, "::1", SOCK_STREAM, false);
SLABS(ip4_udp, "127.0.0.1", SOCK_DGRAM, false);
SLABS(ip6_udp, "::1", SOCK_DGRAM, true);

static void *wait_for_end(void *data)
{
	char byte;

	read(*(int *)data, &byte, 1);
	return NULL;
}

FIXTURE_SETUP(slabs)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	ASSERT_EQ(0, rc(pipe(self->end)));
	if (variant->threads)
		ASSERT_EQ(0, pthread_create(&self->thread, NULL, wait_for_end,
					    &self->end[0]));
}

FIXTURE_TEARDOWN(slabs)
{
	close(self->end[1]);
	if (self->thread)
		pthread_join(self->thread, NULL);
}

/*
 * Repeat a case. Returns a cache that has grown by as much as a leak would make it, after
 * waiting for objects that are freed later; or NULL.
 */
static const struct cache *grown_by(struct __test_metadata *_metadata,
				    const struct scene *scene, size_t nth)
{
	static struct caches before, after;
	const struct cache *grown;
	int round, naps = 100;

	ASSERT_TRUE(caches_read(&before));
	for (round = 0; round < ROUNDS; round++) {
		ASSERT_EQ(0, cases[nth].make(_metadata, scene)) {
			TH_LOG("%s, round %d", cases[nth].name, round);
		}
	}
	EXPECT_EQ(0, wait_for_users(0));
	do {
		ASSERT_TRUE(caches_read(&after));
		grown = caches_grown(&before, &after);
		if (grown)
			nap_ms(10);
	} while (grown && naps--);
	return grown;
}

TEST_F_TIMEOUT(slabs, stay_as_they_are, STRESS_TIMEOUT_SEC)
{
	struct scene scene = { .host = variant->host, .type = variant->type };
	static struct caches any;
	const struct cache *grown;
	size_t nth;
	int try;

	if (!access("/sys/kernel/debug/kmemleak", F_OK))
		SKIP(return, "kmemleak tells more here: see leaks.py");
	if (!caches_read(&any))
		SKIP(return, "this kernel has no /proc/slabinfo");
	scene.server = new_socket(_metadata, variant->host, variant->type);
	ASSERT_EQ(0, bind_to(scene.server, variant->host, CONTROL_PORT));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(scene.server, 4)));
	for (nth = 0; nth < ARRAY_SIZE(cases); nth++) {
		if (!(variant->type == SOCK_STREAM ? cases[nth].tcp : cases[nth].udp))
			continue;
		grown = NULL;
		for (try = 0; try < TRIES; try++) {
			grown = grown_by(_metadata, &scene, nth);
			if (!grown)
				break;
		}
		ASSERT_EQ(NULL, grown) {
			TH_LOG("%s: %s grows by one each time, to %ld", cases[nth].name,
			       grown->name, grown->objects);
		}
	}
	close(scene.server);
}

TEST_HARNESS_MAIN
