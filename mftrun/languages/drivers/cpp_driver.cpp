// Runs the main of a program (the linker calls ours in its place), and says the word that stands on standard
// input once it has returned 0.
//
// What a program cannot do: end the process, also while its globals are made, as the word is read before
// anything of it runs and said by nothing but the return of its main; redefine what a failed assertion does,
// as a second definition is an error of the linker; put functions of its own in place of those that meet the
// word, as the kernel is called here without any library; have a child say the word; or print anything.
//
// What it can do: go through its own memory, try its answers in children, or give its types an == that is always
// true. A program that sets out to deceive its tests is their equal, as they run in one process.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

extern "C" int __real_main(int, char **, char **);

static char word[256] = "\n";
static long length;
static long first_process;

static inline __attribute__((always_inline)) long ask(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
#if defined __x86_64__
    register long fourth asm("r10") = d;
    long result;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                 : "rcx", "r11", "memory");
    return result;
#elif defined __aarch64__
    register long x8 asm("x8") = number;
    register long x0 asm("x0") = a;
    register long x1 asm("x1") = b;
    register long x2 asm("x2") = c;
    register long x3 asm("x3") = d;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
#else
#error "C++ is judged on x86_64 and aarch64 only"
#endif
}

static void take_the_word(int, char **, char **) {
    ask(SYS_prctl, PR_SET_DUMPABLE, 0);
    long size = ask(SYS_read, 0, (long)(word + 1), sizeof word - 2);
    length = (size > 0 ? size : 0) + 2;
    word[length - 1] = '\n';
    ask(SYS_close, 0);
    ask(SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDONLY);
    first_process = ask(SYS_getpid);
}

__attribute__((section(".preinit_array"), used)) static void (*first)(int, char **, char **) = take_the_word;

extern "C" int __wrap_main(int count, char **words, char **environment) {
    int code = __real_main(count, words, environment);
    if (code == 0 && ask(SYS_getpid) == first_process) ask(SYS_write, 1, (long)word, length);
    return code;
}

static void complain(const char *said) {
    long size = 0;
    while (said[size]) ++size;
    ask(SYS_write, 2, (long)said, size);
}

extern "C" [[noreturn]] void __assert_fail(const char *said, const char *, unsigned line, const char *) noexcept {
    char digits[12] = {0};
    char *number = digits + sizeof digits - 1;
    do {
        *--number = static_cast<char>('0' + line % 10);
        line /= 10;
    } while (line);
    complain("line ");
    complain(number);
    complain(": Assertion `");
    complain(said);
    complain("' failed.\n");
    for (;;) ask(SYS_kill, ask(SYS_getpid), SIGKILL);
}
