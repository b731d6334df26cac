"""Search for what is learnt beside frozen blocks: pictures, their features on disk, designs, and left-out sets."""
