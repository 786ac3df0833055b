/* Wants the compiler to read what it may not. */
#include "/etc/shadow"

int main(void) { return 0; }
