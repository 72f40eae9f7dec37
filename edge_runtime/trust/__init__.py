"""Who may say what runs: Ed25519 signatures, and the keyring that a device checks them with."""
