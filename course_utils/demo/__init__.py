"""The page that asks both models side by side. Taught in 05."""
