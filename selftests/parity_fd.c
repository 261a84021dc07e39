// SPDX-License-Identifier: GPL-2.0
/*
 * Descriptors that are passed, inherited and duplicated, and calls by io_uring.
 */
#include <sys/syscall.h>
#include <sys/wait.h>

#include "ring.h"

FEATURE_FIXTURE(fd);

static int pass(struct __test_metadata *_metadata, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int pair[2];

	ASSERT_EQ(0, rc(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)));
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	ASSERT_EQ(1, rc(sendmsg(pair[0], &msg, 0)));
	close(fd);

	/* Now only the message in flight refers to the socket. */
	msg.msg_controllen = sizeof(control);
	ASSERT_EQ(1, rc(recvmsg(pair[1], &msg, 0)));
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	close(pair[0]);
	close(pair[1]);
	return fd;
}

TEST_F(fd, passed_unbound)
{
	int listener = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);

	listener = pass(_metadata, listener);
	ASSERT_EQ(0, bind_to(listener, variant->home, variant->port));
	expect_port(_metadata, listener, variant->port);
}

TEST_F(fd, passed_bound)
{
	int server = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int second = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);

	server = pass(_metadata, server);
	expect_port(_metadata, server, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, variant->home, variant->port));
	close(server);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
}

TEST_F(fd, passed_connected)
{
	struct link link = link_up(_metadata, variant->home, variant->port);

	link.child = pass(_metadata, link.child);
	expect_port(_metadata, link.child, variant->port);
	talk(_metadata, link.client, link.child);
}

/* As with inetd: one process binds, another one serves. */
TEST_F(fd, served_by_a_child_process)
{
	int listener = listener_on(_metadata, variant->home, variant->port);
	int client, child, status;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		child = accept(listener, NULL, NULL);
		close(listener);
		if (child < 0 || local_port(child) != variant->port ||
		    send(child, "served", 6, 0) != 6)
			_exit(1);
		close(child);
		_exit(0);
	}
	close(listener);
	client = new_socket(_metadata, variant->home, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_recv(_metadata, client, "served");
	expect_recv(_metadata, client, "");
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* The port is held until the last descriptor is closed. */
TEST_F(fd, held_by_a_child_process)
{
	int first = bound_socket(_metadata, variant->home, SOCK_STREAM, variant->port);
	int second = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);
	int hold[2], status;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, rc(pipe(hold)));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(hold[1]);
		_exit(read(hold[0], &byte, 1));
	}
	close(hold[0]);
	close(first);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, variant->home, variant->port));
	close(hold[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
}

TEST_F(fd, duplicated)
{
	int first = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);
	int copy = dup(first);
	int second = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);

	ASSERT_LE(0, copy);
	ASSERT_EQ(0, bind_to(copy, variant->home, variant->port));
	expect_port(_metadata, first, variant->port);
	EXPECT_EQ(-EINVAL, bind_to(first, variant->home, variant->port));
	close(copy);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, variant->home, variant->port));
	ASSERT_EQ(0, rc(listen(first, 1)));
	expect_port(_metadata, first, variant->port);
	close(first);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
}

/* Opcodes of bind and listen, which older headers lack */
#define RING_BIND	56
#define RING_LISTEN	57

static bool ring_knows(struct ring *ring, int operation)
{
	size_t size = sizeof(struct io_uring_probe) + 256 * sizeof(struct io_uring_probe_op);
	struct io_uring_probe *probe = calloc(1, size);
	bool known = false;

	if (probe && !syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_PROBE, probe, 256))
		known = operation <= probe->last_op &&
			probe->ops[operation].flags & IO_URING_OP_SUPPORTED;
	free(probe);
	return known;
}

TEST_F(fd, io_uring_server)
{
	struct addr at = addr_of(variant->home, variant->port);
	struct addr peer = { .len = sizeof(peer.v6) };
	struct ring ring;
	int error = ring_open(&ring);
	int listener, client, child;
	char text[8] = "";

	if (error)
		SKIP(return, "no io_uring: %s", strerror(-error));
	listener = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);
	if (ring_knows(&ring, RING_BIND)) {
		EXPECT_EQ(0, ring_call(&ring, (struct io_uring_sqe){
			.opcode = RING_BIND, .fd = listener,
			.addr = (uintptr_t)&at.sa, .addr2 = at.len }));
		EXPECT_EQ(0, ring_call(&ring, (struct io_uring_sqe){
			.opcode = RING_LISTEN, .fd = listener, .len = 4 }));
	} else {
		ASSERT_EQ(0, bind_to(listener, variant->home, variant->port));
		ASSERT_EQ(0, rc(listen(listener, 4)));
	}
	expect_port(_metadata, listener, variant->port);

	client = new_socket(_metadata, variant->home, SOCK_STREAM);
	EXPECT_EQ(0, ring_call(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_CONNECT, .fd = client,
		.addr = (uintptr_t)&at.sa, .off = at.len }));
	EXPECT_EQ(variant->port, peer_port(client));
	child = ring_call(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_ACCEPT, .fd = listener,
		.addr = (uintptr_t)&peer.sa, .addr2 = (uintptr_t)&peer.len });
	ASSERT_LE(0, child);
	EXPECT_EQ(local_port(client), port_of(&peer));
	expect_port(_metadata, child, variant->port);

	EXPECT_EQ(4, ring_call(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_SEND, .fd = child, .addr = (uintptr_t)"ring", .len = 4 }));
	EXPECT_EQ(4, ring_call(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_RECV, .fd = client, .addr = (uintptr_t)text, .len = 4 }));
	EXPECT_STREQ("ring", text);
}

/* A datagram by address: the same request again and again, from one ring. */
TEST_F(fd, io_uring_sendmsg)
{
	struct addr to = addr_of(variant->home, variant->port);
	struct iovec iov = { .iov_base = "ring", .iov_len = 4 };
	struct msghdr msg = {
		.msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1,
	};
	int server = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	struct ring ring;
	int error = ring_open(&ring), round;

	if (error)
		SKIP(return, "no io_uring: %s", strerror(-error));
	for (round = 0; round < 3; round++) {
		EXPECT_EQ(4, ring_call(&ring, (struct io_uring_sqe){
			.opcode = IORING_OP_SENDMSG, .fd = client, .addr = (uintptr_t)&msg,
			.len = 1, .flags = round ? IOSQE_ASYNC : 0 }));
		expect_recv(_metadata, server, "ring");
	}
}

/*
 * A send that finds the buffer full is repeated by the kernel, from the request as it
 * was stored: it has to go to the same address.
 */
TEST_F(fd, io_uring_sendmsg_retried)
{
	struct addr to = addr_of(variant->home, variant->port);
	struct iovec iov = { .iov_base = "ring", .iov_len = 4 };
	struct msghdr msg = {
		.msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1,
	};
	int server = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	struct ring ring;
	int error = ring_open(&ring);

	if (error)
		SKIP(return, "no io_uring: %s", strerror(-error));
	ASSERT_LT(0, fill_send_buffer(_metadata, client, is_ip6(variant->home)));
	ASSERT_EQ(0, ring_submit(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_SENDMSG, .fd = client, .addr = (uintptr_t)&msg, .len = 1 }));
	/* The neighbour is given up after three seconds. */
	EXPECT_EQ(4, ring_result(&ring));
	expect_recv(_metadata, server, "ring");
	EXPECT_EQ(variant->port, port_of(&to));
	/* A later send arrives, too. */
	EXPECT_EQ(4, rc(sendmsg(client, &msg, 0)));
	expect_recv(_metadata, server, "ring");
}

TEST_HARNESS_MAIN
