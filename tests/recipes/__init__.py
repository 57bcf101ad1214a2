"""Tests of the recipes for other engines, one file for each engine."""
