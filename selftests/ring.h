/* SPDX-License-Identifier: GPL-2.0 */
/* io_uring, one request at a time, and sends that the kernel has to try twice. */
#ifndef RING_H
#define RING_H

#include <linux/io_uring.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "port0_test.h"

/* An io_uring with room for one request. */
struct ring {
	int fd;
	struct io_uring_sqe *sqes;
	char *rings;
	struct io_uring_params params;
};

static inline int ring_open(struct ring *ring)
{
	size_t size;

	memset(ring, 0, sizeof(*ring));
	ring->fd = rc(syscall(__NR_io_uring_setup, 1, &ring->params));
	if (ring->fd < 0)
		return ring->fd;
	size = ring->params.cq_off.cqes +
	       ring->params.cq_entries * sizeof(struct io_uring_cqe);
	ring->rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			   ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
	return ring->rings == MAP_FAILED || ring->sqes == MAP_FAILED ? -ENOMEM : 0;
}

static inline unsigned int *ring_word(const struct ring *ring, __u32 offset)
{
	return (unsigned int *)(ring->rings + offset);
}

/* Submits a request, which may complete later. */
static inline int ring_submit(struct ring *ring, struct io_uring_sqe request)
{
	unsigned int *tail = ring_word(ring, ring->params.sq_off.tail);

	ring->sqes[0] = request;
	*ring_word(ring, ring->params.sq_off.array) = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	return syscall(__NR_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) == 1 ? 0 : -errno;
}

/* Waits for the completion of that request. */
static inline int ring_result(struct ring *ring)
{
	unsigned int *head = ring_word(ring, ring->params.cq_off.head);
	const struct io_uring_cqe *answers = (void *)(ring->rings + ring->params.cq_off.cqes);
	unsigned int mask = *ring_word(ring, ring->params.cq_off.ring_mask);
	int result;

	if (syscall(__NR_io_uring_enter, ring->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -errno;
	result = answers[*head & mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

static inline int ring_call(struct ring *ring, struct io_uring_sqe request)
{
	return ring_submit(ring, request) ?: ring_result(ring);
}

/* Fills the send buffer with datagrams to a neighbour that does not answer. */
static inline int fill_send_buffer(struct __test_metadata *_metadata, int fd, bool ip6)
{
	struct addr lost = addr_of(ip6 ? "2001:db8::99" : "192.0.2.99", OTHER_PORT);
	static const char packet[1024];
	int sent, err = 0;

	ASSERT_EQ(0, system("ip link add port0a type veth peer name port0b && "
			    "ip link set port0a up && ip link set port0b up && "
			    "ip addr add 192.0.2.1/24 dev port0a && "
			    "ip addr add 2001:db8::1/64 dev port0a nodad"));
	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_SNDBUF, 1));
	for (sent = 0; sent < 1000; sent++) {
		err = rc(sendto(fd, packet, sizeof(packet), MSG_DONTWAIT, &lost.sa,
				lost.len));
		if (err < 0)
			break;
	}
	EXPECT_EQ(-EAGAIN, err);
	return sent;
}

#endif /* RING_H */
