// Copied: counts the bytes that a program copies from memory to memory with memcpy and memmove. Preloaded by `make bench-copied`; the load bench
// reads the counter, which is a file of eight bytes in the folder that HEDDLE_BENCH_COPIED names, mapped by the program and its forks. It must
// not do anything else. Copies so short that a compiler writes them out are not seen, nor are those of the kernel.
//
//   cc -O2 -fno-builtin -shared -fPIC -o copied.so copied.c
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t before_the_file;
static uint64_t *copied = &before_the_file;

__attribute__((constructor)) static void open_the_file(void) {
    char path[4096];
    const char *folder = getenv("HEDDLE_BENCH_COPIED");
    if (!folder || snprintf(path, sizeof path, "%s/XXXXXX", folder) >= (int)sizeof path)
        return;
    int file = mkostemp(path, O_CLOEXEC);
    if (file < 0)
        return;
    void *at = MAP_FAILED;
    if (ftruncate(file, sizeof *copied) == 0)
        at = mmap(NULL, sizeof *copied, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED)
        copied = at;
}

static void count(size_t bytes) { __atomic_fetch_add(copied, bytes, __ATOMIC_RELAXED); }

// Written with the processor's own instruction: a loop here would be compiled into a call of memcpy.
static void forth(void *to, const void *from, size_t bytes) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void back(void *to, const void *from, size_t bytes) {
    char *last_to = (char *)to + bytes - 1;
    const char *last_from = (const char *)from + bytes - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(last_to), "+S"(last_from), "+c"(bytes) : : "memory");
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    count(bytes);
    forth(to, from, bytes);
    return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
    count(bytes);
    if ((uintptr_t)to - (uintptr_t)from >= bytes)
        forth(to, from, bytes);
    else
        back(to, from, bytes);
    return to;
}

// What is compiled with bounds checked calls these.
void *__memcpy_chk(void *restrict to, const void *restrict from, size_t bytes, size_t room) {
    if (room < bytes)
        abort();
    return memcpy(to, from, bytes);
}

void *__memmove_chk(void *to, const void *from, size_t bytes, size_t room) {
    if (room < bytes)
        abort();
    return memmove(to, from, bytes);
}

void *mempcpy(void *restrict to, const void *restrict from, size_t bytes) { return (char *)memcpy(to, from, bytes) + bytes; }
