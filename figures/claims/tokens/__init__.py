"""Claims about costates of policies over tokens."""
