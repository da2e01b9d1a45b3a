"""What `scripts/bench` measures and how. Every figure stands beside a peer's or a floor's, taken in the same run."""
