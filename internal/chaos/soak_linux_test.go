package chaos

func soakServerMain([]string) error { return nil }
