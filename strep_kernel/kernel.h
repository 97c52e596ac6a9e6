/* What the parts of the kernel share: columns, and reading the arguments of a call. */

#ifndef STREP_KERNEL_H
#define STREP_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Of what the functions take and do; Python leaves a kernel out whose version is another one. To be
 * raised with each change, here and in __init__.py. */
#define KERNEL_VERSION 6

/* Loops over samples are compiled for wider registers as well; the loader chooses. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORIZED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORIZED
#endif

/* What compilers do not find themselves is written for registers of 256 bit. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define WIDE __attribute__((target("avx2")))
#define IS_WIDE __builtin_cpu_supports("avx2")
#endif

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

enum { MAX_COLUMNS = 32 };

/* Arrays whose memory stays where it is while this object lives. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t count;
    Py_buffer view[MAX_COLUMNS];
} Columns;

/* Takes the arguments of a call apart: first tables, `Columns` of as many arrays as `columns` says
 * of each, then integers. Returns 0 with an exception set where they are not these. */
int arguments_of(PyObject *const *arguments, Py_ssize_t count, Py_ssize_t tables,
                 const Py_ssize_t *columns, Py_buffer **table, Py_ssize_t integers,
                 int64_t *number);

/* The prefix keeps them apart from functions of the C library, `advance` among them. */
#define FUNCTION(name) \
    PyObject *kernel_##name(PyObject *module, PyObject *const *arguments, Py_ssize_t count)

FUNCTION(receive);
FUNCTION(receive_merged);
FUNCTION(parse);
FUNCTION(lookup);
FUNCTION(strangers);
FUNCTION(advance);
FUNCTION(gather);
FUNCTION(decode);
FUNCTION(weave);
FUNCTION(judge);
FUNCTION(stage);
FUNCTION(tones);

#endif
