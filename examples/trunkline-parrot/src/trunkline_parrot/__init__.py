"""The dialect of a vendor whose models repeat what they hear."""
