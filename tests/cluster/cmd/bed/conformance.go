package main

import "fmt"

func conformance([]string) error { return fmt.Errorf("not yet") }
