"""What recruiters and candidates did becomes a conversation: matched, numbered, locked, cancelled."""
