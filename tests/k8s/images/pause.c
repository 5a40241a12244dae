// Holds a pod's namespaces open, and takes in its orphans; ends when told to.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void Stop(int signal) {
  (void)signal;
  _exit(0);
}

static void Reap(int signal) {
  (void)signal;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

int main(void) {
  signal(SIGTERM, Stop);
  signal(SIGINT, Stop);
  signal(SIGCHLD, Reap);
  for (;;) pause();
}
