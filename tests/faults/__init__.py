"""What goes wrong with machines, disks, processes and senders; then the whole log verified."""
