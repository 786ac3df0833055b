int main(void) {
    for (volatile long number = 0;; number++) {
    }
}
