// SPDX-License-Identifier: GPL-2.0
/*
 * The sk_lookup way to serve port 0: a BPF program that gives what arrives on port 0 in
 * this network namespace to a socket that is bound to another port.
 *
 * It stays attached, with its map of sockets (slot 0 TCP, 1 UDP) pinned at PATH and its
 * link at PATH-link. It is written in instructions, which need no BPF compiler.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSN(_code, _dst, _src, _off, _imm)				\
	((struct bpf_insn){ .code = (_code), .dst_reg = (_dst),		\
			    .src_reg = (_src), .off = (_off), .imm = (_imm) })
#define MOV_REG(dst, src)	INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOV(dst, imm)		INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define ADD(dst, imm)		INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, imm)
#define LOAD(dst, src, off)	INSN(BPF_LDX | BPF_MEM | BPF_W, dst, src, off, 0)
#define STORE(dst, off, imm)	INSN(BPF_ST | BPF_MEM | BPF_W, dst, 0, off, imm)
#define JNE(dst, imm, off)	INSN(BPF_JMP | BPF_JNE | BPF_K, dst, 0, off, imm)
#define JEQ(dst, imm, off)	INSN(BPF_JMP | BPF_JEQ | BPF_K, dst, 0, off, imm)
#define CALL(func)		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, func)
#define EXIT()			INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int make_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_SOCKMAP,
		.key_size = sizeof(uint32_t),
		.value_size = sizeof(uint64_t),
		.max_entries = 2,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

static int load_program(int map)
{
	struct bpf_insn program[] = {
		MOV_REG(BPF_REG_6, BPF_REG_1),
		LOAD(BPF_REG_2, BPF_REG_6,
		     offsetof(struct bpf_sk_lookup, local_port)),
		JNE(BPF_REG_2, 0, 17),
		STORE(BPF_REG_10, -4, 0),
		LOAD(BPF_REG_2, BPF_REG_6,
		     offsetof(struct bpf_sk_lookup, protocol)),
		JNE(BPF_REG_2, IPPROTO_UDP, 1),
		STORE(BPF_REG_10, -4, 1),
		MOV_REG(BPF_REG_2, BPF_REG_10),
		ADD(BPF_REG_2, -4),
		/* the map: one instruction in two */
		INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD,
		     0, map),
		INSN(0, 0, 0, 0, 0),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(BPF_REG_0, 0, 7),
		MOV_REG(BPF_REG_7, BPF_REG_0),
		MOV_REG(BPF_REG_1, BPF_REG_6),
		MOV_REG(BPF_REG_2, BPF_REG_7),
		MOV(BPF_REG_3, 0),
		CALL(BPF_FUNC_sk_assign),
		MOV_REG(BPF_REG_1, BPF_REG_7),
		CALL(BPF_FUNC_sk_release),
		MOV(BPF_REG_0, SK_PASS),
		EXIT(),
	};
	static char log[65536];
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SK_LOOKUP,
		.expected_attach_type = BPF_SK_LOOKUP,
		.insns = (uintptr_t)program,
		.insn_cnt = sizeof(program) / sizeof(*program),
		.license = (uintptr_t)"GPL",
		.log_buf = (uintptr_t)log,
		.log_size = sizeof(log),
		.log_level = 1,
	};
	int fd = bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0)
		err(1, "cannot load the program\n%s", log);
	return fd;
}

static void pin_at(int fd, const char *path)
{
	union bpf_attr attr = {
		.pathname = (uintptr_t)path,
		.bpf_fd = fd,
	};

	if (bpf(BPF_OBJ_PIN, &attr))
		err(1, "cannot pin %s", path);
}

int main(int argc, char **argv)
{
	union bpf_attr attr = { .link_create.attach_type = BPF_SK_LOOKUP };
	char path[128];
	int map, link;

	if (argc != 2)
		errx(2, "usage: steer PATH");
	map = make_map();
	if (map < 0)
		err(1, "cannot make the map");
	attr.link_create.prog_fd = load_program(map);
	attr.link_create.target_fd = open("/proc/self/ns/net", O_RDONLY);
	link = bpf(BPF_LINK_CREATE, &attr);
	if (link < 0)
		err(1, "cannot attach the program");
	pin_at(map, argv[1]);
	snprintf(path, sizeof(path), "%s-link", argv[1]);
	pin_at(link, path);
	return 0;
}
