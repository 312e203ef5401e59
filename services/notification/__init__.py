"""Notification: tells a thread's owner and followers what the candidate said, when each of them wants to hear it."""
