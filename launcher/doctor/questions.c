/* questions.c - the words of every question. */
#include "launcher/doctor/questions.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/config.h"

/* Imports neither torch, which takes seconds, nor djinn: it reads what lies beside them. argv[1] is
 * our folder, beside which a build or an installation has the package. */
static const char python_question[] =
    "import glob, importlib.util as u, os, re, sys, sysconfig\n"
    "def read(path):\n"
    "    try:\n"
    "        with open(path, errors='replace') as file: return file.read(65536)\n"
    "    except OSError: return ''\n"
    "def field(text, name):\n"
    "    got = re.search(r'^' + name + r\"\\s*(?::[^=]*)?=\\s*'([^']*)'\", text, re.M)\n"
    "    return got.group(1) if got else ''\n"
    "def folder(name):\n"
    "    try: spec = u.find_spec(name)\n"
    "    except Exception: spec = None\n"
    "    return os.path.dirname(spec.origin) if spec and spec.origin else ''\n"
    "print('python=%d.%d.%d' % sys.version_info[:3])\n"
    "print('executable=' + sys.executable)\n"
    "torch = folder('torch')\n"
    "if torch:\n"
    "    text = read(os.path.join(torch, 'version.py'))\n"
    "    print('torch=' + (field(text, '__version__') or '?'))\n"
    "    print('cuda=' + field(text, 'cuda'))\n"
    "djinn = folder('djinn')\n"
    "places = '../python', '../lib/djinn/python', '../lib/*/djinn/python'\n"
    "near = [p for where in (place + '/djinn' for place in places)\n"
    "        for p in glob.glob(os.path.join(glob.escape(sys.argv[1]), where))]\n"
    "djinn = djinn or os.path.normpath(near[0]) if djinn or near else ''\n"
    "if djinn:\n"
    "    print('frontend=' + djinn)\n"
    "    print('built=' + field(read(os.path.join(djinn, '_built.py')), 'TORCH'))\n"
    "    shims = [name for name in os.listdir(djinn) if re.match(r'_C\\..*\\.so$', name)]\n"
    "    fits = '_C' + sysconfig.get_config_var('EXT_SUFFIX') in shims\n"
    "    print('shim=' + ('fits' if fits else ' '.join(shims) or 'none'))\n";

/* "<folder of this program>/name"; the name alone when the folder is not known. */
static const char *beside(const char *name, char path[DJ_FILE_PATH_MAX])
{
    char self[DJ_FILE_PATH_MAX - 64];
    ssize_t got = readlink("/proc/self/exe", self, sizeof self - 1);
    self[got > 0 ? got : 0] = '\0';
    char *slash = strrchr(self, '/');
    snprintf(path, DJ_FILE_PATH_MAX, "%.*s%s", slash ? (int)(slash - self + 1) : 0, self, name);
    return path;
}

/* The python3 of an active virtual environment, else the one in PATH. */
static const char *python(char path[DJ_FILE_PATH_MAX])
{
    const char *environment = dj_environment("VIRTUAL_ENV");
    if (environment)
        snprintf(path, DJ_FILE_PATH_MAX, "%s/bin/python3", environment);
    else
        snprintf(path, DJ_FILE_PATH_MAX, "python3");
    return path;
}

static void start_program(dj_exam_t *exam, dj_ask_id_t id)
{
    char path[DJ_FILE_PATH_MAX], package[DJ_FILE_PATH_MAX];
    const char *rank = exam->doctor->config->rank_program;
    const char *words[DJ_ASK_WORDS_MAX] = {NULL};
    int n = 0;
    switch (id) {
    case DJ_ASK_SRUN_MPI:
        words[n++] = "srun", words[n++] = "--mpi=list";
        break;
    case DJ_ASK_SCONTROL:
        words[n++] = "scontrol", words[n++] = "show", words[n++] = "config";
        break;
    case DJ_ASK_MUNGE:
        words[n++] = "munge", words[n++] = "-n";
        break;
    case DJ_ASK_MPIRUN:
        words[n++] = "mpirun", words[n++] = "--version";
        break;
    case DJ_ASK_PYTHON:
        words[n++] = python(path), words[n++] = "-c", words[n++] = python_question;
        words[n++] = beside("", package);
        break;
    case DJ_ASK_SERVER:
        words[n++] = beside("djinn-server", path), words[n++] = "--version";
        break;
    case DJ_ASK_RANK:
        words[n++] = rank[0] ? rank : beside("djinn-rank", path), words[n++] = "--version";
        break;
    default:
        return;
    }
    dj_ask_start(&exam->asks[id], words, NULL, NULL);
}

void dj_questions_start(dj_exam_t *exam, unsigned asks)
{
    static dj_folders_t folders;
    fflush(NULL); /* so that no child writes it a second time */
    for (int id = 0; id < DJ_ASK_COUNT; id++) {
        if (!(asks & 1u << id))
            continue;
        void (*function)(const void *) = NULL;
        if (id == DJ_ASK_CUDA)
            function = dj_probe_cuda;
        else if (id == DJ_ASK_PMIX)
            function = dj_probe_pmix;
        else if (id == DJ_ASK_HOST)
            function = dj_probe_host;
        else if (id == DJ_ASK_FILES)
            function = dj_probe_files;
        if (id == DJ_ASK_FILES)
            dj_folders_list(exam, &folders);
        if (function)
            dj_ask_start(&exam->asks[id], NULL, function, &folders);
        else
            start_program(exam, (dj_ask_id_t)id);
    }
}

void dj_questions_end(dj_exam_t *exam)
{
    for (int id = 0; id < DJ_ASK_COUNT; id++)
        dj_ask_wait(&exam->asks[id]);
}
