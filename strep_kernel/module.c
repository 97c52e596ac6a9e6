/* The module: columns, and the table of functions. */

#include "kernel.h"

static PyObject *columns_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Columns takes arrays only");
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(arguments);
    if (count > MAX_COLUMNS) {
        PyErr_Format(PyExc_ValueError, "%zd arrays, expected at most %d", count, MAX_COLUMNS);
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Columns *self = (Columns *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *array = PyTuple_GetItem(arguments, i);
        if (PyObject_GetBuffer(array, &self->view[i], PyBUF_C_CONTIGUOUS) < 0) {
            Py_DECREF(self);
            return NULL;
        }
        self->count = i + 1;
    }
    return (PyObject *)self;
}

static void columns_dealloc(PyObject *object)
{
    Columns *self = (Columns *)object;
    for (Py_ssize_t i = 0; i < self->count; i++)
        PyBuffer_Release(&self->view[i]);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyType_Slot columns_slots[] = {
    {Py_tp_doc, "Arrays (C-contiguous) that the kernel's functions work on.\n\n"
                "Their memory stays where it is while this object lives."},
    {Py_tp_new, columns_new},
    {Py_tp_dealloc, columns_dealloc},
    {0, NULL},
};

static PyType_Spec columns_spec = {
    .name = "strep_kernel._kernel.Columns",
    .basicsize = sizeof(Columns),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = columns_slots,
};

static PyTypeObject *columns_type;

int arguments_of(PyObject *const *arguments, Py_ssize_t count, Py_ssize_t tables,
                 const Py_ssize_t *columns, Py_buffer **table, Py_ssize_t integers,
                 int64_t *number)
{
    if (count != tables + integers) {
        PyErr_Format(PyExc_TypeError, "%zd arguments, expected %zd", count, tables + integers);
        return 0;
    }
    for (Py_ssize_t i = 0; i < tables; i++) {
        if (Py_TYPE(arguments[i]) != columns_type) {
            PyErr_Format(PyExc_TypeError, "argument %zd is not Columns", i);
            return 0;
        }
        Columns *given = (Columns *)arguments[i];
        if (given->count != columns[i]) {
            PyErr_Format(PyExc_ValueError, "argument %zd has %zd columns, expected %zd", i,
                         given->count, columns[i]);
            return 0;
        }
        table[i] = given->view;
    }
    for (Py_ssize_t i = 0; i < integers; i++) {
        number[i] = PyLong_AsLongLong(arguments[tables + i]);
        if (number[i] == -1 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))kernel_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    METHOD(receive), METHOD(receive_merged), METHOD(parse),  METHOD(lookup), METHOD(strangers),
    METHOD(advance), METHOD(gather),         METHOD(decode), METHOD(weave),  METHOD(judge),
    METHOD(stage),   METHOD(tones),          {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    columns_type = (PyTypeObject *)PyType_FromSpec(&columns_spec);
    if (columns_type == NULL || PyModule_AddObjectRef(module, "Columns", (PyObject *)columns_type) ||
        PyModule_AddIntConstant(module, "VERSION", KERNEL_VERSION)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
