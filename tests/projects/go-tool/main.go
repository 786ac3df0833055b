package main

import (
	"fmt"
	"os"
)

var version = "unknown"

func main() {
	fmt.Println("tool", version, os.Getuid())
}
