/* SPDX-License-Identifier: GPL-2.0 */
/*
 * BPF programs, and control groups to run them in. The programs are written as
 * instructions, which takes neither a BPF compiler nor libbpf.
 */
#ifndef PORT0_CGROUP_H
#define PORT0_CGROUP_H

#include <linux/bpf.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>

#include "port0_test.h"

#define MOV(to, from)		INSN(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0)
#define MOV_IMM(to, value)	INSN(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value)
#define ADD_IMM(to, value)	INSN(BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, value)
#define LOAD(to, from, at)	INSN(BPF_LDX | BPF_MEM | BPF_W, to, from, at, 0)
#define STORE(to, at, from)	INSN(BPF_STX | BPF_MEM | BPF_W, to, from, at, 0)
#define STORE_IMM(to, at, value) INSN(BPF_ST | BPF_MEM | BPF_W, to, 0, at, value)
#define SKIP_IF(reg, value, skip) INSN(BPF_JMP | BPF_JEQ | BPF_K, reg, 0, skip, value)
#define SKIP_UNLESS(reg, value, skip) INSN(BPF_JMP | BPF_JNE | BPF_K, reg, 0, skip, value)
#define LOAD_MAP(to, fd)							\
	INSN(BPF_LD | BPF_DW | BPF_IMM, to, BPF_PSEUDO_MAP_FD, 0, fd), INSN(0, 0, 0, 0, 0)
#define CALL(function)		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_##function)
#define RETURN()		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define INSN(operation, to, from, at, value)					\
	{ .code = operation, .dst_reg = to, .src_reg = from, .off = at, .imm = value }

#define ADDR(field)		offsetof(struct bpf_sock_addr, field)

enum { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 };

static inline int bpf(int command, union bpf_attr *attr)
{
	return rc(syscall(__NR_bpf, command, attr, sizeof(*attr)));
}

#define LOAD_PROGRAM(type, attach, ...) ({					\
	const struct bpf_insn _insns[] = { __VA_ARGS__ };			\
										\
	load_program(_metadata, type, attach, _insns, ARRAY_SIZE(_insns));	\
})

static inline int load_program(struct __test_metadata *_metadata, int type, int attach,
			       const struct bpf_insn *insns, size_t count)
{
	static char log[65536];
	union bpf_attr attr = {
		.prog_type = type, .expected_attach_type = attach,
		.insns = (uintptr_t)insns, .insn_cnt = count, .license = (uintptr_t)"GPL",
		.log_buf = (uintptr_t)log, .log_size = sizeof(log), .log_level = 1,
	};
	int fd = bpf(BPF_PROG_LOAD, &attr);

	ASSERT_LE(0, fd) {
		TH_LOG("%s", log);
	}
	return fd;
}

static inline void attach(struct __test_metadata *_metadata, int target, int program, int type)
{
	union bpf_attr attr = {
		.target_fd = target, .attach_bpf_fd = program, .attach_type = type,
	};

	ASSERT_EQ(0, bpf(BPF_PROG_ATTACH, &attr));
}

static inline void detach(struct __test_metadata *_metadata, int target, int program, int type)
{
	union bpf_attr attr = {
		.target_fd = target, .attach_bpf_fd = program, .attach_type = type,
	};

	ASSERT_EQ(0, bpf(BPF_PROG_DETACH, &attr));
}

#define CGROUP		"/sys/fs/cgroup"
#define NO_CGROUP	"no cgroup2 at " CGROUP

static inline bool have_cgroup(void)
{
	return !access(CGROUP "/cgroup.procs", W_OK);
}

struct cgroup {
	char path[64];
	int fd;
};

/* Moves this process, and the threads that it starts, into a group of its own. */
static inline void cgroup_enter(struct __test_metadata *_metadata, struct cgroup *cgroup)
{
	char procs[96];

	snprintf(cgroup->path, sizeof(cgroup->path), CGROUP "/port0-%d", getpid());
	ASSERT_EQ(0, rc(mkdir(cgroup->path, 0755)));
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroup->path);
	ASSERT_EQ(0, write_file(procs, "0"));
	cgroup->fd = open(cgroup->path, O_RDONLY | O_DIRECTORY);
	ASSERT_LE(0, cgroup->fd);
}

static inline void cgroup_leave(struct __test_metadata *_metadata, struct cgroup *cgroup)
{
	int tries = 0;

	close(cgroup->fd);
	EXPECT_EQ(0, write_file(CGROUP "/cgroup.procs", "0"));
	/*
	 * A process may be counted in its control group for a while after it
	 * has ended.
	 */
	while (rmdir(cgroup->path)) {
		ASSERT_EQ(EBUSY, errno);
		ASSERT_GT(1000, tries++);
		usleep(10 * 1000);
	}
}

#define WITH_ADDRESS(type, ...)							\
	LOAD_PROGRAM(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, type, __VA_ARGS__)

/* Allows calls with @port and refuses all others. */
#define EXPECT_ADDRESS(type, port)						\
	WITH_ADDRESS(type,							\
		     LOAD(R2, R1, ADDR(user_port)),				\
		     MOV_IMM(R0, 0),						\
		     SKIP_UNLESS(R2, htons(port), 1),				\
		     MOV_IMM(R0, 1),						\
		     RETURN())

#endif /* PORT0_CGROUP_H */
