// SPDX-License-Identifier: GPL-2.0
/*
 * Tells from a program's file whether it ignores preloaded libraries.
 *
 * port0-run uses this for COMMAND. libport0.so uses it for the programs that
 * COMMAND starts, between fork() and exec(): no memory is allocated and no lock
 * is taken.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "program.h"

#define MAX_NAME 256
/* The kernel takes no larger program headers; notes are far smaller. */
#define MAX_HEADERS 65536

/* The ELF header of this code, by the linker's symbol */
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

static bool read_at(int fd, void *buf, size_t size, uint64_t place)
{
	return place <= INT64_MAX && pread(fd, buf, size, (off_t)place) == (ssize_t)size;
}

/*
 * The dynamic linker ignores preloaded libraries if the program gets other
 * rights than its caller has.
 */
static void inspect_rights(int fd, struct program *p)
{
	bool ignored = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
	struct statfs fs;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return;
	if (!fstatfs(fd, &fs))
		ignored |= fs.f_flags & ST_NOSUID;
	if (st.st_mode & S_ISUID && !ignored)
		uid = st.st_uid;
	if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !ignored)
		gid = st.st_gid;
	if (uid != getuid() || gid != getgid()) {
		p->obstacle = "changes its user or group when it starts (setuid), so it ignores preloaded libraries";
		p->advice = "run it as the user it changes to";
	} else if (getuid() && !ignored && fgetxattr(fd, "security.capability", NULL, 0) > 0) {
		p->obstacle = "has file capabilities, so it ignores preloaded libraries";
		p->advice = "run it as root";
	}
}

/*
 * Tell whether the file has the note of a Go compiler. Go programs do not call
 * the C library's bind().
 */
static bool has_go_note(int fd, uint64_t place, uint64_t size)
{
	if (size > MAX_HEADERS)
		size = MAX_HEADERS;
	while (size >= sizeof(ElfW(Nhdr)) + 4) {
		struct { ElfW(Nhdr) head; char name[4]; } note;
		uint64_t length;

		if (!read_at(fd, &note, sizeof(note), place))
			return false;
		if (note.head.n_namesz == 4 && !memcmp(note.name, "Go\0", 4))
			return true;
		length = sizeof(note.head) + ((note.head.n_namesz + 3ULL) & ~3ULL) +
			 ((note.head.n_descsz + 3ULL) & ~3ULL);
		if (length > size)
			return false;
		place += length;
		size -= length;
	}
	return false;
}

static const char *base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The path of the dynamic linker that has loaded this code */
static const char *own_linker(void)
{
	const ElfW(Phdr) *part = (const void *)getauxval(AT_PHDR);
	unsigned long count = getauxval(AT_PHNUM);
	uintptr_t load = 0;

	for (unsigned long n = 0; part && n < count; n++) {
		if (part[n].p_type == PT_PHDR)
			load = (uintptr_t)part - part[n].p_vaddr;
	}
	for (unsigned long n = 0; part && n < count; n++) {
		if (part[n].p_type == PT_INTERP)
			return (const char *)(load + part[n].p_vaddr);
	}
	return NULL;
}

/* Tell whether the file is the dynamic linker, which can be given a program to run. */
static bool is_linker(int fd)
{
	const char *name = own_linker();
	struct stat file, linker;

	return name && !fstat(fd, &file) && !stat(name, &linker) &&
	       file.st_dev == linker.st_dev && file.st_ino == linker.st_ino;
}

static void inspect_elf(int fd, const ElfW(Ehdr) *head, struct program *p)
{
	char linker[MAX_NAME] = "";
	bool go = false;

	if (head->e_ident[EI_CLASS] != __ehdr_start.e_ident[EI_CLASS] ||
	    head->e_machine != __ehdr_start.e_machine) {
		p->obstacle = "is for another machine than libport0.so, which it cannot load";
		return;
	}
	for (size_t n = 0; n < head->e_phnum && n < MAX_HEADERS / sizeof(ElfW(Phdr)); n++) {
		uint64_t place = head->e_phoff + n * (uint64_t)head->e_phentsize;
		ElfW(Phdr) part;

		if (!read_at(fd, &part, sizeof(part), place))
			break;
		if (part.p_type == PT_INTERP && part.p_filesz && part.p_filesz < sizeof(linker)) {
			if (!read_at(fd, linker, part.p_filesz, part.p_offset))
				linker[0] = '\0';
			linker[part.p_filesz] = '\0';
		}
		go |= part.p_type == PT_NOTE && has_go_note(fd, part.p_offset, part.p_filesz);
	}
	if (!*linker && is_linker(fd))
		return;
	p->other_libc = *linker && own_linker() && strcmp(base(linker), base(own_linker()));
	if (!*linker)
		p->obstacle = "is statically linked, so it cannot load libport0.so";
	else if (go)
		p->obstacle = "is a Go program, which makes its system calls without the C library";
	else if (p->other_libc)
		p->obstacle = "has another C library than libport0.so, which it cannot load";
}

/**
 * program_inspect - see whether a program will load our library
 * @fd: the program, open for reading, or O_PATH: then only its rights are seen
 * @program: what was found
 *
 * A file that cannot be read or executed is no obstacle: exec() will report what is
 * wrong with it.
 *
 * Context: any; safe in a signal handler.
 */
void program_inspect(int fd, struct program *program)
{
	union { ElfW(Ehdr) elf; char text[MAX_NAME + 2]; } head = { .text = "" };
	struct program *p = program;
	ssize_t got;
	char *name;

	*p = (struct program) { .obstacle = NULL };
	inspect_rights(fd, p);
	if (p->obstacle)
		return;
	got = pread(fd, head.text, sizeof(head.text) - 1, 0);
	if (got >= (ssize_t)sizeof(head.elf) && !memcmp(head.text, ELFMAG, SELFMAG)) {
		inspect_elf(fd, &head.elf, p);
	} else if (got > 2 && !memcmp(head.text, "#!", 2)) {
		name = head.text + 2 + strspn(head.text + 2, " \t");
		name[strcspn(name, " \t\n")] = '\0';
		strncpy(p->interpreter, name, sizeof(p->interpreter) - 1);
	}
}
