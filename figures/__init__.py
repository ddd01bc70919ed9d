"""The evidence: claims, the runs behind them, the pictures, the command. Importing this is cheap; rooms load on use."""
