/* Calls kernels from a process with another C library, or on another CPU, than Python's.
 *
 * replay KERNELS MEMORY ADDRESS < CALLS
 *
 * KERNELS: a shared object. MEMORY: a file that becomes the memory at ADDRESS, so that what calls point to lies where
 * it lay when they were written down; results go to it. A call is a line: a function and up to nine whole numbers, of
 * which `result` is what the call before gave. What each gives is printed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

typedef int64_t Function(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

static int failed(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

int main(int count, char **given)
{
    struct stat about;
    char line[1024];
    int64_t result = 0;
    if (count != 4)
        return failed(given[0], "KERNELS MEMORY ADDRESS < CALLS");
    void *kernels = dlopen(given[1], RTLD_NOW), *address = (void *)(uintptr_t)strtoull(given[3], NULL, 10);
    int file = open(given[2], O_RDWR);
    if (!kernels)
        return failed(given[1], dlerror());
    if (file < 0 || fstat(file, &about) || about.st_size == 0 ||
        mmap(address, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != address)
        return failed(given[2], "cannot be mapped");
    while (fgets(line, sizeof line, stdin)) {
        int64_t arguments[9] = {0};
        char *name = strtok(line, " \n"), *word;
        Function *function = (Function *)(uintptr_t)dlsym(kernels, name);
        if (!function)
            return failed(name, dlerror());
        for (int i = 0; i < 9 && (word = strtok(NULL, " \n")); i++)
            arguments[i] = strcmp(word, "result") ? strtoll(word, NULL, 10) : result;
        result = function(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5],
                          arguments[6], arguments[7], arguments[8]);
        printf("%lld\n", (long long)result);
    }
    return 0;
}
