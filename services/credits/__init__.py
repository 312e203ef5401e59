"""Credits: the ledger of every contract, moved by what becomes of its InMails."""
