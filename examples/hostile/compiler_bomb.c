/* A line that becomes 16 GiB of program. */
char data[1L << 34] = {1};

int main(void) { return data[12345]; }
